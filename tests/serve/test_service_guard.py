"""Which host names the service answers to, and which pages may post to it."""

from collections.abc import Iterator, Mapping, Sequence

import httpx
import pytest
from fastapi.testclient import TestClient
from served import grey, write_model
from starlette.types import Message, Scope

from gender_classifier.cli.main import main
from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.app import Settings, build_app
from gender_classifier.serve.guard import HostPattern, parse_authority

ENDPOINTS = ("/", "/page.js", "/docs", "/model", "/health", "/metrics", "/openapi.json", "/no", "/docs/")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture(scope="module")
def client(predictor: Predictor) -> Iterator[TestClient]:
    settings = Settings(allowed_hosts=("faces.example.org", "*.cluster.example", "proxy.example:8443"))
    with TestClient(build_app(predictor, settings), base_url="http://127.0.0.1:8000") as client:
        yield client


def refusal(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["x-content-type-options"] == "nosniff"
    error = answer.json()["error"]
    assert error["message"].isprintable()
    return answer.status_code, error["reason"]


@pytest.mark.parametrize("path", ENDPOINTS)
def test_a_foreign_name_gets_nothing(client: TestClient, path: str) -> None:
    assert refusal(client.get(path, headers={"Host": "rebound.example"})) == (421, "host")
    answer = client.post("/predict", headers={"Host": "rebound.example", "Origin": "http://rebound.example"})
    assert refusal(answer) == (421, "host")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "127.0.0.1:8000", "192.168.1.20:8000", "10.0.0.1", "8.8.8.8", "[::1]", "[::1]:8000", "[fe80::1]:80",
        "[2001:DB8::1]", "localhost", "LocalHost:8000", "localhost.", "localhost:", "faces.localhost:8000",
        "faces.example.org", "FACES.example.org:1234", "faces.example.org.", "a.cluster.example", "a.b.cluster.example:1",
        "proxy.example:8443",
    ],
)  # fmt: skip
def test_its_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "evil-localhost", "xlocalhost", "127.0.0.1.evil.example",
        "127.0.0.1.nip.example", "faces.example.org.evil.example", "evilfaces.example.org", "cluster.example",
        "xcluster.example", "proxy.example", "proxy.example:80", "0x7f.0.0.1", "2130706433", "127.1", "127.00.0.01",
        "1.2.3.4.5", "256.0.0.1",
    ],
)  # fmt: skip
def test_names_that_only_look_like_its_own_are_foreign(client: TestClient, host: str) -> None:
    assert refusal(client.get("/health", headers={"Host": host})) == (421, "host")


@pytest.mark.parametrize(
    "host",
    [
        "", " ", ":", ":8000", "localhost:x", "localhost:99999", "localhost:-1", "localhost:8000:8000", "localhost..",
        ".localhost", "user@localhost", "localhost@evil.example", "localhost:1@evil.example", "localhost/", "localhost#x",
        "localhost?x", "localhost,evil.example", "localhost evil.example", "http://localhost", "[::1", "::1", "[::1]x",
        "[::1%25eth0]", "[localhost]", "local\xadhost", "\xb9\xb2\xb7.0.0.1", "%6cocalhost", "localhost\\x", "*",
        "localhost\x1b[31m", "loc\x9balhost",
    ],
)  # fmt: skip
def test_a_malformed_host_is_refused(client: TestClient, host: str) -> None:
    assert refusal(client.get("/health", headers={"Host": host.encode("latin-1")})) in ((400, "host"), (421, "host"))


def ask(predictor: Predictor, headers: Sequence[tuple[bytes, bytes]], *allowed: str) -> int:
    """Return the status of `GET /health` with exactly these headers."""
    app = build_app(predictor, Settings(allowed_hosts=allowed))
    scope: Scope = {
        "type": "http", "http_version": "1.0", "method": "GET", "path": "/health", "raw_path": b"/health",
        "query_string": b"", "headers": list(headers), "scheme": "http", "server": ("127.0.0.1", 80), "client": None,
        "root_path": "",
    }  # fmt: skip
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    coroutine = app(scope, receive, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    (status,) = statuses
    return status


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"host", b"localhost"), (b"host", b"localhost")],
        [(b"host", b"localhost"), (b"host", b"evil.example")],
        [(b"host", b"evil.example"), (b"host", b"localhost")],
    ],
)
@pytest.mark.parametrize("allowed", [[], ["*"]])
def test_exactly_one_host_is_taken(
    predictor: Predictor, headers: list[tuple[bytes, bytes]], allowed: list[str]
) -> None:
    assert ask(predictor, headers, *allowed) == 400


def test_a_star_allows_every_name(predictor: Predictor) -> None:
    assert ask(predictor, [(b"host", b"any.example")], "*") == 200
    assert ask(predictor, [(b"host", b"any.example")]) == 421
    assert ask(predictor, [(b"host", b"any example")], "*") == 400


@pytest.mark.parametrize(
    "text",
    ["", " ", "http://faces.example.org", "faces.example.org/", "faces.example.org:", "faces.example.org:70000", "a b", "**",
     "*.", "*x.example", "a.*.example", "192.168.*", "*.*", "user@faces.example.org", "fäces.example", "\x1b[31m"],
)  # fmt: skip
def test_a_malformed_allowed_host_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--allowed-hosts", f"faces.example.org,{text}"])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "is not a host name; use names such as faces.example.org" in error
    assert "\x1b" not in error


def test_ports_of_allowed_hosts() -> None:
    pattern = HostPattern.parse("*.example:443")
    found = {text: parse_authority(text) for text in ("a.example", "a.example:443", "a.example:80", "example:443")}
    assert [text for text, one in found.items() if one and pattern.matches(one)] == ["a.example", "a.example:443"]


def post(client: TestClient, headers: Mapping[str, str], path: str = "/predict") -> httpx.Response:
    field = "image" if path == "/explain" else "images"
    return client.post(path, files=[(field, ("a.png", grey(200), "image/png"))], headers=headers)


@pytest.mark.parametrize("path", ["/predict", "/explain"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Sec-Fetch-Site": "Same-Origin"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "https://127.0.0.1"},
        {"Origin": "http://127.0.0.1:8000.evil.example"},
        {"Origin": "http://127.0.0.1:8000@evil.example"},
        {"Origin": "http://evil.example/127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:8000, http://evil.example"},
        {"Origin": "file://"},
        {"Origin": "chrome-extension://127.0.0.1:8000"},
        {"Origin": "127.0.0.1:8000"},
    ],
)
def test_pages_of_other_origins_may_not_post(client: TestClient, headers: dict[str, str], path: str) -> None:
    assert refusal(post(client, headers, path)) == (403, "origin")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Origin": "HTTP://127.0.0.1:8000"},
        {"Host": "faces.example.org", "Origin": "https://faces.example.org"},
        {"Host": "faces.example.org:443", "Origin": "https://faces.example.org"},
        {"Host": "faces.example.org", "Origin": "http://faces.example.org:80"},
        {"Host": "[::1]:8000", "Origin": "http://[::1]:8000"},
        # Its own page behind a proxy that does not pass the name on: the browser knows.
        {"Host": "127.0.0.1:8000", "Origin": "https://faces.example.org", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_its_own_page_and_programs_may_post(client: TestClient, headers: dict[str, str]) -> None:
    assert post(client, headers).status_code == 200


def test_other_methods_are_guarded_and_reading_is_not(client: TestClient) -> None:
    foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
    for method in ("PUT", "DELETE", "PATCH", "X"):
        assert refusal(client.request(method, "/predict", headers=foreign)) == (403, "origin")
    assert client.get("/health", headers=foreign).status_code == 200  # a link from another page
    answer = client.options("/predict", headers={**foreign, "Access-Control-Request-Method": "POST"})
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/docs/", "/model/", "/predict/", "//evil.example/", "/health/?a=1"])
def test_nothing_is_redirected(client: TestClient, path: str) -> None:
    answer = client.get(f"http://127.0.0.1:8000{path}", follow_redirects=False)
    assert refusal(answer) == (404, "not_found")
    assert "location" not in answer.headers


def test_refusals_are_counted(predictor: Predictor) -> None:
    client = TestClient(build_app(predictor, Settings()), base_url="http://localhost")
    client.get("/health", headers={"Host": "evil.example"})
    post(client, {"Origin": "null"})
    text = client.get("/metrics").text
    for line in (
        'gender_classifier_errors_total{reason="host"} 1.0',
        'gender_classifier_errors_total{reason="origin"} 1.0',
        'gender_classifier_requests_total{path="/health",status="421"} 1.0',
    ):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize(
    "path", ["/%1b%5b31m", "/%c2%9b31m", "/a%0d%0aX-Y:%20z", "/%e2%80%ae", "/%e2%80%a8", "/%00", "/%ff"]
)
def test_what_a_refusal_quotes_is_printable(client: TestClient, path: str) -> None:
    assert refusal(client.get(path)) == (404, "not_found")
    answer = client.post(
        "/predict",
        content=b'--b\r\nContent-Disposition: form-data; name="\xc2\x9b31m\x1b[2J\xe2\x80\xae"\r\n\r\nx\r\n--b--\r\n',
        headers={"Content-Type": "multipart/form-data; boundary=b"},
    )
    assert refusal(answer) == (422, "unknown_field")

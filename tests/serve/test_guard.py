"""Whose requests are answered: names of one's own, and pages of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from served import grey, write_model
from starlette.datastructures import Headers

from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve.app import build_app
from gender_classifier.serve.guard import Guard, parse_allowed_hosts, parse_host
from gender_classifier.serve.settings import Settings
from gender_classifier.serve.uploads import RequestError

ALLOWED = ("faces.example.org", "*.lan")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    predictor = Predictor(write_model(tmp_path_factory.mktemp("guard") / "model.onnx"))
    return TestClient(build_app(predictor, Settings(allowed_hosts=ALLOWED)), base_url="http://127.0.0.1:8000")


FOREIGN = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "xlan", "lan", "",
           "127.0.0.1@evil.example", "evil.example@127.0.0.1", "a b", "127.0.0.1:port", "[::1", "[evil.example]",
           "faces.example.org.evil.example", "evil.example/127.0.0.1", "0x7f000001", "2130706433", "127.1"]  # fmt: skip
OWN = ["127.0.0.1:8000", "127.0.0.1", "[::1]:8000", "[::1]", "192.168.1.7", "localhost", "LOCALHOST:8000", "a.localhost",
       "localhost.", "faces.example.org", "FACES.example.org.:443", "printer.lan", "a.b.lan:1"]  # fmt: skip


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("path", ["/", "/model", "/health", "/docs", "/metrics", "/nowhere"])
def test_a_name_that_is_not_the_services_is_refused_everywhere(client: TestClient, host: str, path: str) -> None:
    """DNS rebinding: the attacker's name resolves to this machine, and his page then is of the same origin."""
    answer = client.get(path, headers={"host": host, "origin": f"http://{host}"})
    assert (answer.status_code, answer.json()["error"]["reason"]) == (421, "host")
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("host", OWN)
def test_addresses_localhost_and_allowed_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_two_hosts_are_none_of_ours_and_http_1_0_needs_none() -> None:
    guard = Guard(None, ALLOWED)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="--allowed-hosts"):
        guard.check("GET", Headers(raw=[(b"host", b"127.0.0.1"), (b"host", b"127.0.0.1")]))
    guard.check("GET", Headers(raw=[]))


def test_a_star_allows_any_name() -> None:
    guard = Guard(None, ("*",))  # type: ignore[arg-type]
    guard.check("GET", Headers({"host": "anything.example"}))
    with pytest.raises(RequestError):
        guard.check("GET", Headers({"host": "a b"}))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),  # another port of this machine is another page
        ({"sec-fetch-site": "cross-site", "origin": "http://127.0.0.1:8000"}, 403),
        ({"sec-fetch-site": "something-new"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "file://"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:8000"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "https://faces.example.org"}, 200),  # behind a proxy that rewrites Host
        ({}, 200),  # curl, a program
    ],
)
def test_a_page_of_another_origin_cannot_post(client: TestClient, headers: dict[str, str], status: int) -> None:
    answer = client.post("/predict", files={"images": ("a.png", grey(1))}, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 403:
        assert answer.json()["error"]["reason"] == "cross_site"


@pytest.mark.parametrize("path", ["/docs/", "/predict/", "/health/", "//evil.example/docs/"])
def test_nothing_is_redirected(client: TestClient, path: str) -> None:
    answer = client.get(path, follow_redirects=False)
    assert (answer.status_code, answer.json()["error"]["reason"]) == (404, "not_found")
    assert "location" not in answer.headers


@pytest.mark.parametrize("text", ["a b", "http://a", "a:80", "*", "*.", "*.*.a", "a/b", "", "-a"])
def test_names_to_allow_are_checked(text: str) -> None:
    if text == "*":
        assert parse_allowed_hosts([text]) == ("*",)
        return
    with pytest.raises(ValueError, match="is not a host name"):
        parse_allowed_hosts([text])


def test_names_to_allow_are_in_one_form() -> None:
    assert parse_allowed_hosts(["Faces.Example.org.", " *.LAN", "[::1]"]) == ("faces.example.org", "*.lan", "::1")


@given(st.text(max_size=40))
def test_any_host_is_a_name_or_none(text: str) -> None:
    name = parse_host(text)
    assert name is None or (name == name.lower() and not set(name) & set(" /@[]\\"))


def test_a_bad_name_is_wrong_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from gender_classifier.cli.main import main  # noqa: PLC0415

    with pytest.raises(SystemExit) as end:
        main(["serve", "--allowed-hosts", "http://a"])
    assert end.value.code == 2
    assert "'http://a' is not a host name" in capsys.readouterr().err

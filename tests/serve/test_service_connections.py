"""What strangers can do to the service with bare sockets: heads, framing, silence, numbers; and that it ends in time."""

import json
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from served import grey, served, write_model

from gender_classifier.predict.predictor import Predictor
from gender_classifier.serve import connections as service_connections
from gender_classifier.serve.app import Settings, build_app
from gender_classifier.serve.connections import Connection, Server

KEY = "a-key-for-tests"
GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=b\r\n"
KEYED = POST + f"Authorization: Bearer {KEY}\r\n".encode()
BODY = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + grey(240) + b"\r\n--b--\r\n"


class InProcess(Server):
    """Without the end by force, which would take the tests with it."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await uvicorn.Server.shutdown(self, sockets)


@contextmanager
def serving(predictor: Predictor, settings: Settings, connections: int = 512) -> Iterator[int]:
    """Serve in a thread; yields the port."""
    config = uvicorn.Config(
        build_app(predictor, settings), http=Connection, ws="none", log_level="warning", access_log=False,
        limit_concurrency=connections, timeout_graceful_shutdown=1,
    )  # fmt: skip
    server = InProcess(config)
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        port: int = listener.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield port
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(write_model(tmp_path_factory.mktemp("model") / "model.onnx"), threads=1)


@pytest.fixture(scope="module")
def port(predictor: Predictor) -> Iterator[int]:
    with serving(predictor, Settings(api_key=KEY), connections=200) as port:
        yield port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def read_all(raw: socket.socket) -> bytes:
    received = b""
    with suppress(ConnectionError):
        while chunk := raw.recv(65536):
            received += chunk
    return received


def send(port: int, *parts: bytes) -> bytes:
    """Send parts, each as long as it is taken; return all that comes back until the connection is closed."""
    with connect(port) as raw:
        with suppress(ConnectionError):
            for part in parts:
                raw.sendall(part)
        return read_all(raw)


def refusal(received: bytes) -> tuple[int, str]:
    """Return status and reason of an answer that closes the connection; it has the form of every refusal."""
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-type"] == "application/json"
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    assert len(lines) == len(headers)
    error = json.loads(body)["error"]
    assert error["message"].isprintable()
    return int(status.split()[1]), error["reason"]


def is_cut_off(raw: socket.socket, data: bytes, *, pause: float = 0, seconds: float = 10) -> bool:
    """Send ``data`` again and again, every ``pause`` s; True if the service closes the connection within ``seconds``."""
    began = time.monotonic()
    try:
        while time.monotonic() - began < seconds:
            raw.sendall(data)
            time.sleep(pause)
    except ConnectionError:
        return True
    return False


def is_well(port: int) -> bool:
    return httpx.get(f"http://127.0.0.1:{port}/health", timeout=5, trust_env=False).status_code == 200


# Heads


@pytest.mark.parametrize(
    "parts",
    [
        [GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n"],
        [GET, b"X: ", *[b"a" * 100_000] * 100],
        [GET, *[b"a: b\r\n" * 1000] * 100],
        [GET + b"a:\r\n" * 9000 + b"\r\n"],
        [b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"],
        [b"GET /health?", *[b"a" * 100_000] * 20],
        [GET, b"X" * 40_000, b": a\r\n\r\n"],
        [GET + b"\r\n" + GET, b"X: ", *[b"a" * 100_000] * 20],
    ],
    ids=["header", "endless header", "endless headers", "many headers", "target", "endless target", "name", "second"],
)
def test_large_heads(port: int, parts: list[bytes]) -> None:
    received = send(port, *parts)
    assert refusal(received[received.rindex(b"HTTP/1.1 ") :]) == (431, "head_too_large")
    assert is_well(port)


def test_heads_as_browsers_send_them_are_taken(port: int) -> None:
    assert send(port, GET + b"Cookie: " + b"a" * 20_000 + b"\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 200")
    split = GET + b"Connection: close\r\n\r\n"
    assert send(port, *(split[place : place + 1] for place in range(len(split)))).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /health\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
        GET + b"X\x00: a\r\n\r\n",
        GET + b"X: \x1b[31m\x00\r\n\r\n",
        GET + b" folded: a\r\n\r\n",
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 99999999999999999999999999\r\n\r\n",
        POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        KEYED + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"\r\n" * 30_000,
    ],
)
def test_what_is_no_request_is_refused_in_the_usual_form(port: int, data: bytes) -> None:
    status, reason = refusal(send(port, data))
    assert (status, reason) == (400, "malformed")


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"http://evil.example/health", b"localhost", 421),
        (b"HTTP://evil.example:80/health", b"localhost", 421),
        (b"http://evil.example?/health", b"localhost", 400),
        (b"http://localhost@evil.example/health", b"localhost", 400),
        (b"http://localhost:1@evil.example/health", b"localhost", 400),
        (b"http://localhost/health", b"evil.example", 200),
        (b"http://127.0.0.1:8000/health", b"localhost", 200),
        (b"//evil.example/health", b"localhost", 404),
    ],
)
def test_the_host_of_an_absolute_target_counts(port: int, target: bytes, host: bytes, status: int) -> None:
    received = send(port, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
    assert int(received.split()[1]) == status


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    "hosts", [b"", b"Host:\r\n", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nhOST: x.y\r\n"]
)
def test_no_host_or_two(port: int, version: bytes, hosts: bytes) -> None:
    received = send(port, b"GET /health HTTP/" + version + b"\r\n" + hosts + b"Connection: close\r\n\r\n")
    assert refusal(received) == (400, "host")


# Bodies


def test_chunk_extensions_have_an_end(port: int) -> None:
    received = send(port, KEYED + b"Transfer-Encoding: chunked\r\n\r\n5;a=", *[b"x" * 100_000] * 50)
    assert refusal(received) == (400, "malformed")


@pytest.mark.parametrize("trailer", [b"X: ", b"X: y\r\n"], ids=["one", "many"])
def test_trailers_have_an_end(port: int, trailer: bytes) -> None:
    chunk = b"5\r\n--b\r\n\r\n0\r\n"
    more = trailer if trailer.endswith(b"\n") else b"z"
    received = send(port, KEYED + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + trailer, *[more * 20_000] * 50)
    assert refusal(received) == (400, "malformed")


def test_trailers_are_not_taken_for_headers(port: int) -> None:
    chunk = b"%x\r\n%s\r\n0\r\n" % (len(BODY), BODY)
    head = KEYED.replace(b"Content-Type: multipart/form-data; boundary=b\r\n", b"Connection: close\r\n")
    received = send(
        port,
        head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"Content-Type: multipart/form-data; boundary=b\r\n\r\n",
    )
    assert b" 415 " in received[:20]


def test_a_body_in_chunks_of_a_byte_is_read(port: int) -> None:
    chunks = b"".join(b"1\r\n%c\r\n" % one for one in BODY) + b"0\r\n\r\n"
    received = send(port, KEYED + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    assert received.startswith(b"HTTP/1.1 200"), received


@pytest.mark.parametrize(
    ("head", "refused"),
    [
        (POST, (401, "no_key")),
        (KEYED.replace(b"localhost", b"example.org"), (421, "host")),
        (KEYED + b"Origin: http://example.org\r\n", (403, "origin")),
        (KEYED.replace(b"/predict", b"/nothing"), (404, "not_found")),
    ],
)
def test_who_asks_before_the_body_is_told_and_let_go(port: int, head: bytes, refused: tuple[int, str]) -> None:
    received = send(port, head + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n")
    assert refusal(received) == refused
    assert received.lower().count(b"\r\nconnection: close\r\n") == 1


def test_a_refused_body_is_dropped_and_the_connection_goes_on(port: int) -> None:
    with connect(port) as raw:
        raw.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        assert b" 401 " in raw.recv(65536)  # before the body
        raw.sendall(bytes(1_000_000) + GET + b"Connection: close\r\n\r\n")
        assert read_all(raw).startswith(b"HTTP/1.1 200")


def test_a_refused_body_has_an_end(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_connections, "_MAX_DISCARDED", 1_000_000)
    with connect(port) as raw:
        raw.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        assert b" 401 " in raw.recv(65536)
        assert is_cut_off(raw, b"186a0\r\n" + bytes(100_000) + b"\r\n")


@pytest.mark.parametrize("authorization", [b"", b"Bearer", b"Bearer  ", b"Bearer \xff\xfe", b"Bearer " + b"k" * 30_000,
                                           f"Basic {KEY}".encode(), f"Bearer {KEY}\r\nAuthorization: Bearer x".encode()])  # fmt: skip
@pytest.mark.parametrize("rest", [b"Content-Length: 0", b"Content-Length: 999999999", b"Transfer-Encoding: chunked"])
def test_without_the_key_it_is_401_whatever_else_is_wrong(port: int, authorization: bytes, rest: bytes) -> None:
    with connect(port) as raw:
        raw.sendall(
            b"POST /predict HTTP/1.1\r\nHost: localhost\r\nAuthorization: "
            + authorization
            + b"\r\n"
            + rest
            + b"\r\n\r\n"
        )
        assert raw.recv(65536).startswith(b"HTTP/1.1 401")


# Many


def test_requests_sent_ahead_are_bounded(port: int) -> None:
    received = send(port, (GET + b"\r\n") * 20_000)
    assert 0 < received.count(b"HTTP/1.1 200") <= 17
    assert is_well(port)
    received = send(port, (GET + b"\r\n") * 9 + GET + b"Connection: close\r\n\r\n")
    assert received.count(b"HTTP/1.1 200") == 10


def test_an_answer_under_way_is_not_mixed_with_a_refusal(port: int) -> None:
    received = send(port, KEYED + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + b"nonsense\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.startswith(b"HTTP/1.1 200")


def test_other_protocols_are_not_spoken(port: int) -> None:
    for protocol in (b"websocket", b"h2c"):
        received = send(port, GET + b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n" + GET)
        assert received.startswith(b"HTTP/1.1 200")
        assert received.count(b"HTTP/1.1 ") == 1


def test_silent_connections_make_room(port: int) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(port)) for _ in range(300)]
        for raw in silent[::2]:
            with suppress(ConnectionError):
                raw.sendall(b"GET / HTTP/1.1\r\nX: ")
        began = time.monotonic()
        assert is_well(port)
        assert time.monotonic() - began < 5
        assert sum(map(is_closed, silent)) >= 100
        assert not is_closed(silent[-1])


def is_closed(raw: socket.socket) -> bool:
    raw.settimeout(0.01)
    try:
        return not raw.recv(1)
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def test_slow_clients_without_the_key_take_nobodys_place(port: int) -> None:
    stop = threading.Event()
    with ExitStack() as stack:
        slow = [stack.enter_context(connect(port)) for _ in range(100)]
        for raw in slow:
            raw.sendall(POST + b"Content-Length: 100000\r\n\r\n--b")

        def trickle() -> None:
            while not stop.wait(0.05):
                for raw in slow:
                    with suppress(OSError):
                        raw.send(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            time.sleep(0.3)
            with httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=5, trust_env=False) as client:
                for _ in range(5):
                    answer = client.post(f"http://127.0.0.1:{port}/predict", files={"images": grey(240)})
                    assert answer.status_code == 200, answer.text
        finally:
            stop.set()
            thread.join()


def test_slow_uploads_take_nobodys_place_either(predictor: Predictor) -> None:
    with serving(predictor, Settings(max_requests=4), connections=30) as port, ExitStack() as stack:
        for _ in range(40):  # more than connections
            raw = stack.enter_context(connect(port))
            raw.sendall(POST + b"Content-Length: 100000\r\n\r\n--b")
        time.sleep(0.3)
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", files={"images": grey(240)}, timeout=5, trust_env=False)
        assert answer.status_code == 200, answer.text


def test_where_all_connections_work_one_more_is_told(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    compute = Predictor.compute
    monkeypatch.setattr(Predictor, "compute", lambda self, images: (go.wait(20), compute(self, images))[1])
    with serving(predictor, Settings(), connections=3) as port, ExitStack() as stack:
        working = [stack.enter_context(connect(port)) for _ in range(3)]
        for raw in working:
            raw.sendall(POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
        time.sleep(0.5)
        assert refusal(send(port, GET + b"\r\n")) == (503, "busy")
        go.set()
        assert [read_all(raw)[:12] for raw in working] == [b"HTTP/1.1 200"] * 3


# Time


@pytest.fixture
def hasty(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The service with tenths of its seconds."""
    for name, seconds in (("_HEAD_SECONDS", 1), ("_UNREAD_SECONDS", 1), ("_LINGER_SECONDS", 0.2), ("_TICKS", 1)):
        monkeypatch.setattr(service_connections, name, seconds)
    with serving(predictor, Settings(api_key=KEY)) as port:
        yield port


def test_silence_is_ended(hasty: int) -> None:
    with connect(hasty) as silent, connect(hasty) as used:
        used.sendall(GET + b"\r\n")
        assert used.recv(65536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert read_all(silent) == b""
        assert read_all(used) == b""
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("before", [b"", GET + b"\r\n"], ids=["first", "second"])
def test_a_trickled_head_is_ended(hasty: int, before: bytes) -> None:
    with connect(hasty) as raw:
        raw.sendall(before)
        if before:
            assert raw.recv(65536).startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        with suppress(ConnectionError):
            for char in GET + b"X: " + b"x" * 1000:
                raw.sendall(bytes([char]))
                raw.settimeout(0.05)
                with suppress(TimeoutError):
                    received = raw.recv(65536)
                    break
        assert time.monotonic() - began < 5
        assert refusal(received) == (408, "slow")


def test_a_trickled_refused_body_is_ended(hasty: int) -> None:
    with connect(hasty) as raw:
        raw.sendall(POST + b"Content-Length: 100000\r\n\r\n")
        assert b" 401 " in raw.recv(65536)
        assert is_cut_off(raw, b"x", pause=0.05)


def test_who_does_not_read_is_let_go(hasty: int, caplog: pytest.LogCaptureFixture) -> None:
    assert is_well(hasty)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        raw.connect(("127.0.0.1", hasty))
        assert is_cut_off(raw, b"GET /page.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5, pause=0.02)
    assert is_well(hasty)
    assert not caplog.records


def test_a_request_that_does_not_end_is_told_when_the_service_stops(predictor: Predictor) -> None:
    with ExitStack() as stack:
        with serving(predictor, Settings()) as port:
            raw = stack.enter_context(connect(port))
            raw.sendall(POST + b"Content-Length: 100000\r\n\r\n--b")
            time.sleep(0.2)
        assert refusal(read_all(raw)) == (503, "stopping")


# The command


@pytest.mark.slow
def test_sigterm_ends_it_in_time_whatever_is_open(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    with served(model, tmp_path) as running, ExitStack() as stack:
        opened = [stack.enter_context(connect(running.port)) for _ in range(6)]
        for raw, data in zip(
            opened,
            [b"", b"GET /he", GET + b"\r\n" + GET, POST + b"Content-Length: 1000\r\n\r\n--b", b"x\r\n\r\n"],
            strict=False,
        ):
            raw.sendall(data)
        stop = threading.Event()

        def trickle() -> None:
            with suppress(OSError):
                opened[-1].sendall(POST + b"Content-Length: 100000\r\n\r\n")
                while not stop.wait(0.1):
                    opened[-1].sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        time.sleep(0.5)
        began = time.monotonic()
        running.process.send_signal(signal.SIGTERM)
        try:
            assert running.process.wait(15) == 0
            assert time.monotonic() - began < 10
        finally:
            stop.set()
            thread.join()
        assert "Traceback" not in running.log


@pytest.mark.slow
def test_thousands_of_silent_connections_end_after_ten_seconds(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    with served(model, tmp_path) as running, ExitStack() as stack:
        silent = [stack.enter_context(connect(running.port)) for _ in range(1500)]
        began = time.monotonic()
        assert is_well(running.port)
        assert time.monotonic() - began < 5
        assert len(psutil.Process(running.process.pid).net_connections()) < 530
        assert read_all(silent[-1]) == b""
        assert 5 < time.monotonic() - began < 15
        assert running.log.count("\n") == 1

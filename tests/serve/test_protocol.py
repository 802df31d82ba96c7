"""Connections of strangers: heads without end, silence, too many at once. Real sockets, a real service."""

from __future__ import annotations

import json
import signal
import socket
import stat
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest
from served import Served, grey, served, write_model

from gender_classifier.serve.protocol import HEAD_SECONDS, MAX_CONNECTIONS, MAX_HEAD_BYTES

KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("protocol")
    key = folder / "key"
    key.write_text(KEY)
    key.chmod(0o600)
    with served(write_model(folder / "model.onnx"), folder, "--api-key-file", str(key)) as service:
        yield service


def connect(service: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read until the service closes."""
    data = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionResetError:
            break
        if not part:
            break
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
    return int(lines[0].split()[1]) if lines[0] else 0, headers, body


def assert_refused(answer: tuple[int, dict[str, str], bytes], status: int, reason: str) -> None:
    assert answer[0] == status, answer
    assert json.loads(answer[2])["error"]["reason"] == reason
    assert answer[1]["content-type"] == "application/json"
    assert answer[1]["x-content-type-options"] == "nosniff"


def predict(service: Served, key: str = KEY, timeout: float = 10) -> int:
    body = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + grey(200) + b"\r\n--b--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=b", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{service.address}/predict", body, headers)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return int(answer.status)


def health_seconds(service: Served) -> float:
    began = time.perf_counter()
    with urllib.request.urlopen(f"{service.address}/health", timeout=10) as answer:
        assert answer.status == 200
    return time.perf_counter() - began


def endless(kind: str) -> Iterator[bytes]:
    """Yield a request of which some part never ends."""
    start = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    auth = f"Authorization: Bearer {KEY}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    if kind == "target":
        yield b"GET /" + b"a" * 1000
        part = b"a" * 4000
    elif kind == "header value":
        yield start + b"X: "
        part = b"a" * 4000
    elif kind == "headers":
        yield start
        part = b"X: y\r\n" * 600
    elif kind == "chunk header":
        yield start + auth + b"1;"
        part = b"a" * 4000
    else:
        yield start + auth + b"0\r\n"
        part = b"X: y\r\n" * 600
    while True:
        yield part


@pytest.mark.parametrize("kind", ["target", "header value", "headers", "chunk header", "trailers"])
def test_nothing_of_a_head_is_without_end(running: Served, kind: str) -> None:
    """Sent as fast as it is taken: refused after kilobytes, while others are answered and the memory stays."""
    before = psutil.Process(running.process.pid).memory_info().rss
    sent = 0
    with connect(running) as connection:
        try:
            for part in endless(kind):
                connection.sendall(part)
                sent += len(part)
                assert sent < 16 * 2**20, "nobody stops it"
        except OSError:
            pass
        if kind in ("target", "header value", "headers"):
            status = read_answer(connection)[0]
            assert status in (431, 0)  # a reset may overtake the answer while the client still sends
    assert health_seconds(running) < 5
    assert psutil.Process(running.process.pid).memory_info().rss - before < 32 * 2**20


def test_a_head_that_is_too_large_is_told_so(running: Served) -> None:
    with connect(running) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * MAX_HEAD_BYTES)
        connection.sendall(b"a" * 1000)
        assert_refused(read_answer(connection), 431, "head_too_large")


@pytest.mark.parametrize("data", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"GET / HTTP/x\r\nHost: a\r\n\r\n",
                                  b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"])  # fmt: skip
def test_what_is_no_request_is_refused_as_json(running: Served, data: bytes) -> None:
    with connect(running) as connection:
        connection.sendall(data + b"\r\n\r\n")
        assert_refused(read_answer(connection), 400, "malformed")


@pytest.mark.slow
@pytest.mark.parametrize("start", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"])
def test_a_connection_without_a_whole_head_is_closed(running: Served, start: bytes) -> None:
    """Also the second one of a connection, dripped a byte at a time."""
    with connect(running) as connection:
        connection.sendall(start)
        if start.endswith(b"\r\n\r\n"):
            assert b"200 OK" in connection.recv(65536)
        began = time.monotonic()
        connection.settimeout(0.5)
        while time.monotonic() - began < HEAD_SECONDS + 8:
            try:
                if not connection.recv(65536):
                    break
            except TimeoutError:
                try:
                    connection.sendall(b"G")
                except OSError:
                    break
            except OSError:
                break
        assert time.monotonic() - began < HEAD_SECONDS + 5


def test_silent_connections_do_not_keep_others_out(running: Served) -> None:
    with ExitStack() as stack:
        silent = [stack.enter_context(connect(running)) for _ in range(MAX_CONNECTIONS + 100)]
        assert health_seconds(running) < 2
        assert predict(running) == 200
        # The first to have been silent made room.
        silent[0].settimeout(2)
        with suppress(ConnectionResetError):
            assert silent[0].recv(1) == b""


def test_clients_without_the_key_hold_no_place(running: Served) -> None:
    """80 keyless uploads, each dripping: who has the key is served meanwhile."""
    head = (
        b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
        b"Content-Length: 1000000\r\n\r\n--b\r\n"
    )
    stop = threading.Event()
    with ExitStack() as stack:
        open_ones = [stack.enter_context(connect(running)) for _ in range(80)]
        for one in open_ones:
            one.sendall(head)

        def drip() -> None:
            while not stop.wait(0.2):
                for one in open_ones:
                    try:
                        one.sendall(b"x")
                    except OSError:
                        continue

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            for _ in range(5):
                began = time.monotonic()
                assert predict(running) == 200
                assert time.monotonic() - began < 3
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("content_type", ["text/plain", "multipart/form-data"])
def test_a_content_type_that_is_no_upload_holds_no_place(running: Served, content_type: str) -> None:
    head = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {content_type}\r\n"
        "Content-Length: 1000000\r\n\r\n"
    ).encode()
    with ExitStack() as stack:
        for _ in range(70):
            stack.enter_context(connect(running)).sendall(head)
        assert predict(running) == 200


@pytest.mark.slow
def test_sigterm_ends_it_whatever_clients_do(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model.onnx")
    with served(model, tmp_path) as service, ExitStack() as stack:
        for start in (b"", b"GET /hea", b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; "
                      b"boundary=b\r\nContent-Length: 1000000\r\n\r\n--b\r\n"):  # fmt: skip
            stack.enter_context(connect(service)).sendall(start)
        family = psutil.Process(service.process.pid).children(recursive=True)
        time.sleep(0.5)
        began = time.monotonic()
        service.process.send_signal(signal.SIGTERM)
        assert service.process.wait(15) == 0
        assert time.monotonic() - began < 10
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive


def test_a_key_that_others_can_read_is_told(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(KEY)
    for mode, is_told in ((0o644, True), (0o600, False)):
        key.chmod(mode)
        assert stat.S_IMODE(key.stat().st_mode) == mode
        with served(write_model(tmp_path / "model.onnx"), tmp_path, "--api-key-file", str(key)) as service:
            assert ("can be read by other users of this machine" in service.log) == is_told

"""The service under attack beside an honest client: is a request lost, how long do they take, how much memory?

    python benchmarks/attack.py [--model models/model.onnx] [--seconds 120]

Without --model a small one is made up, so that the figures are the service's. The attackers are processes of their
own: silent connections, heads without end, decode bombs, uploads without the key that drip, posts of other origins.
The honest client sends one face crop after the other, 5 ms apart, first alone and then beside them.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests"), str(ROOT / "tests" / "data")]

KEY = "a-key-for-the-benchmark"
HEAD = "POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = options.model or _make_model(folder)
        key = folder / "key"
        key.write_text(KEY)
        key.chmod(0o600)
        command = [sys.executable, "-m", "gender_classifier", "serve", "--port", "0", "--model", str(model)]
        service = subprocess.Popen(
            [*command, "--api-key-file", str(key)], env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        try:
            assert service.stdout is not None
            port = int(service.stdout.readline().split("http://127.0.0.1:")[1].split()[0])
            _report(service, port, options.seconds)
        finally:
            service.terminate()
            service.wait(20)


def _report(service: subprocess.Popen[str], port: int, seconds: float) -> None:
    crop = _encode(np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8), "JPEG")
    memory = _Memory(service.pid)
    quiet = _use_honestly(port, crop, min(seconds / 4, 30))
    at_rest = memory.peak
    attackers = [multiprocessing.Process(target=attack, args=(port,), daemon=True) for attack in ATTACKS]
    for attacker in attackers:
        attacker.start()
    time.sleep(2)
    under = _use_honestly(port, crop, seconds)
    for attacker in attackers:
        attacker.terminate()
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores; {len(ATTACKS)} kinds of attack, {seconds:.0f} s")
    for name, (times, lost) in (("alone", quiet), ("under attack", under)):
        p50, p99 = np.percentile(times, [50, 99]) * 1e3
        count = f"{len(times):6} honest requests, {lost} lost"
        print(f"{name:13} {count}, p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(times):.2f} s")
    print(f"unique memory of the service and its processes: {at_rest:.0f} MB before, {memory.peak:.0f} MB at most")


class _Memory:
    """The most unique memory that a process and its children had at a time, MB; looked at twice a second."""

    def __init__(self, pid: int) -> None:
        self.peak = 0.0
        self._process = psutil.Process(pid)
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            total = 0
            try:
                for one in (self._process, *self._process.children(recursive=True)):
                    try:
                        total += one.memory_full_info().uss
                    except psutil.Error:
                        continue
            except psutil.Error:
                return
            self.peak = max(self.peak, total / 1e6)
            time.sleep(0.5)


def _use_honestly(port: int, crop: bytes, seconds: float) -> tuple[list[float], int]:
    body = _wrap(crop)
    headers = {"content-type": "multipart/form-data; boundary=b", "authorization": f"Bearer {KEY}"}
    times, lost, end = [], 0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/predict", body, headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                answer.read()
        except (OSError, urllib.error.HTTPError) as error:
            lost += 1
            print(f"lost: {error}", file=sys.stderr)
        times.append(time.perf_counter() - began)
        time.sleep(0.005)
    return times, lost


def _keep_silent(port: int) -> None:
    held: list[socket.socket] = []
    while True:
        _try(lambda: held.append(_connect(port)))
        if len(held) > 700:
            held.pop(0).close()
        time.sleep(0.002)


def _send_endless_heads(port: int) -> None:
    while True:

        def send() -> None:
            with _connect(port) as connection:
                connection.sendall(HEAD.encode() + b"X: ")
                while True:
                    connection.sendall(b"a" * 65536)

        _try(send)
        time.sleep(0.01)


def _post_bombs(port: int) -> None:
    """With the key: what an honest account that was stolen can do."""
    from attack_images import READ, REFUSED  # noqa: PLC0415

    bodies = [_wrap(build()) for build in (*READ.values(), *(build for build, _ in REFUSED.values()))]
    while True:
        for body in bodies:
            _try(lambda body=body: _post(port, body, f"Authorization: Bearer {KEY}\r\n"))  # type: ignore[misc]
            time.sleep(0.05)


def _post_without_key(port: int) -> None:
    held: list[socket.socket] = []
    while True:
        if len(held) < 80:

            def begin() -> None:
                connection = _connect(port)
                connection.sendall(f"{HEAD}Content-Length: 1000000\r\n\r\n--b\r\n".encode())
                held.append(connection)

            _try(begin)
        for one in list(held):
            try:
                one.sendall(b"x")
            except OSError:
                held.remove(one)
        time.sleep(0.1)


def _post_across_sites(port: int) -> None:
    body = _wrap(_encode(np.zeros((2000, 2000, 3), np.uint8), "PNG"))
    while True:
        _try(lambda: _post(port, body, "Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.example\r\n"))
        time.sleep(0.01)


ATTACKS: tuple[Callable[[int], None], ...] = (
    _keep_silent, _send_endless_heads, _post_bombs, _post_without_key, _post_across_sites,
)  # fmt: skip


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def _post(port: int, body: bytes, more: str) -> None:
    with _connect(port) as connection:
        connection.sendall(f"{HEAD}{more}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        connection.recv(65536)


def _try(action: Callable[[], object]) -> None:
    try:
        action()
    except OSError:
        time.sleep(0.01)


def _wrap(data: bytes) -> bytes:
    return b'--b\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n' + data + b"\r\n--b--\r\n"


def _encode(pixels: np.ndarray, format: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def _make_model(folder: Path) -> Path:
    from served import write_model  # noqa: PLC0415

    return write_model(folder / "model.onnx")


if __name__ == "__main__":
    main()

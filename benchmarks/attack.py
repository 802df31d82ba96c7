"""Lost requests, latency and memory of the service, with and without an attack.

    python benchmarks/attack.py [--model models/model.onnx] [--seconds 20]     2 x 20 s and 5 s to start, on 2 cores

The service requires a key, which only the honest client has. The attack runs in a separate process, all parts at once
and as fast as it can: silent connections, incomplete headers, large headers, endless pipelines, uploads without the key
that trickle or give a wrong length, POST requests of other origins, foreign host names. With --bombs the attacker has
the key as well and sends images that are slow or large to decode; these compete with the honest client for the two
decoding processes.
"""

import argparse
import asyncio
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from serve import BOUNDARY, ROOT, _build_request, _read_images

KEY = "a-key-for-the-benchmark"
HEAD = f"Host: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n".encode()
AUTHORIZATION = f"Authorization: Bearer {KEY}\r\n".encode()
# Connections of each kind that are held open; s between two requests of a flood.
HELD, PAUSE = 300, 0.01
# s after which a request counts as lost.
PATIENCE = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "model.onnx")
    parser.add_argument(
        "--seconds", type=float, default=20, help="duration without the attack, and again with it (default: 20)"
    )
    parser.add_argument(
        "--interval", type=float, default=0.02, help="s between two requests of the honest client (default: 0.02)"
    )
    parser.add_argument(
        "--bombs", action="store_true", help="also attack with the key and images that are slow or large to decode"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--attack", type=int, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.attack:
        asyncio.run(_attack(options.attack, options.seconds, bombs=options.bombs))
        return
    command = [sys.executable, "-m", "gender_classifier", "serve", "--port", "0", "--model", str(options.model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "GENDER_CLASSIFIER_API_KEY": KEY}
    service = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, bufsize=1)
    try:
        assert service.stdout is not None
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", service.stdout.readline())[0])
        rows = [asyncio.run(_measure(port, options, service.pid, under_attack=attack)) for attack in (False, True)]
    finally:
        service.terminate()
        service.wait(30)
    interval = options.interval * 1e3
    print(f"honest client: one image every {interval:.0f} ms, each on its own connection; {os.cpu_count()} cores")
    print("attack   sent   lost   p50 ms   p99 ms   max ms   peak RSS MB (decoding processes included)")
    for row in rows:
        print(
            f"{row['attack']!s:6s} {row['sent']:6.0f} {row['lost']:6.0f} {row['p50_ms']:8.1f} {row['p99_ms']:8.1f} "
            f"{row['max_ms']:8.1f} {row['peak_mb']:8.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"seconds": options.seconds, "rows": rows}, indent=2) + "\n")


async def _measure(port: int, options: argparse.Namespace, pid: int, *, under_attack: bool) -> dict[str, float]:
    requests = [_with_key(_build_request(data)) for data in _read_images(None)]
    for _ in range(20):
        await _ask(port, requests[0])
    attack = None
    if under_attack:
        command = [sys.executable, __file__, "--attack", str(port), "--seconds", str(options.seconds)]
        attack = await asyncio.create_subprocess_exec(*command, *(["--bombs"] if options.bombs else []))
        await asyncio.sleep(2)  # the attack needs this to start
    watch = asyncio.create_task(_watch_memory(pid))
    seconds, lost = await _be_honest(port, requests, options.seconds - 2 * under_attack, options.interval)
    watch.cancel()
    peak = await watch
    if attack:
        await attack.wait()
    p50, p99 = np.percentile(seconds, [50, 99]) * 1e3 if seconds else (np.nan, np.nan)
    return {
        "attack": under_attack, "sent": len(seconds) + lost, "lost": lost, "p50_ms": float(p50), "p99_ms": float(p99),
        "max_ms": max(seconds, default=np.nan) * 1e3, "peak_mb": peak / 1e6,
    }  # fmt: skip


def _with_key(request: bytes) -> bytes:
    return request.replace(b"\r\n", b"\r\n" + AUTHORIZATION + b"Connection: close\r\n", 1)


async def _be_honest(port: int, requests: Sequence[bytes], seconds: float, interval: float) -> tuple[list[float], int]:
    """Send a request every ``interval`` s without waiting for answers; return the latencies, s, and the number lost."""
    tasks, began = [], time.monotonic()
    while time.monotonic() - began < seconds:
        tasks.append(asyncio.create_task(_ask(port, requests[len(tasks) % len(requests)])))
        await asyncio.sleep(max(0.0, began + len(tasks) * interval - time.monotonic()))
    latencies = await asyncio.gather(*tasks)
    answered = [latency for latency in latencies if latency is not None]
    return answered, len(latencies) - len(answered)


async def _ask(port: int, request: bytes) -> float | None:
    """Return the seconds to a prediction, or None if there was none."""
    began = time.perf_counter()
    try:
        received = await asyncio.wait_for(_exchange(port, request), PATIENCE)
    except (OSError, TimeoutError):
        return None
    return time.perf_counter() - began if received.startswith(b"HTTP/1.1 200") else None


async def _exchange(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()


async def _watch_memory(pid: int) -> int:
    """Return the peak RSS, bytes, of the service and its child processes, once cancelled."""
    peak, service = 0, psutil.Process(pid)
    with suppress(asyncio.CancelledError):
        while True:
            total = 0
            for process in (service, *service.children(recursive=True)):
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            peak = max(peak, total)
            await asyncio.sleep(0.1)
    return peak


async def _attack(port: int, seconds: float, *, bombs: bool) -> None:
    upload = b"POST /predict HTTP/1.1\r\n" + HEAD
    get = b"GET /health HTTP/1.1\r\n" + HEAD
    page = b"Origin: http://evil.example\r\nSec-Fetch-Site: cross-site\r\nContent-Length: 100000\r\n\r\n" + bytes(
        100_000
    )
    floods = [
        get + b"X: " + b"a" * 2_000_000,
        get + b"a: b\r\n" * 100_000,
        (get + b"\r\n") * 2000,
        upload + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"x" * 1_000_000,
        upload + b"Content-Length: 16000000\r\n\r\n" + bytes(1_000_000),
        upload + page,
        get.replace(b"127.0.0.1", b"evil.example") + b"\r\n",
        b"\r\n" * 100_000,
    ]
    if bombs:
        floods += [_with_key(_build_request(data)) for data in _draw_bombs()]
    held = [b"", b"GET /health HTTP/1.1\r\nX: ", upload + b"Content-Length: 1000000\r\n\r\n"]
    jobs = [_flood(port, data) for data in floods] + [_hold(port, data) for data in held for _ in range(HELD)]
    await asyncio.wait([asyncio.create_task(job) for job in jobs], timeout=seconds)


async def _flood(port: int, data: bytes) -> None:
    while True:
        with suppress(OSError, TimeoutError):
            await asyncio.wait_for(_exchange(port, data), PATIENCE)
        await asyncio.sleep(PAUSE)


async def _hold(port: int, data: bytes) -> None:
    """Hold a connection open and reopen it when it is closed; after ``data``, send one more byte every second."""
    while True:
        with suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            while not writer.is_closing():
                await asyncio.sleep(1)
                if data:
                    writer.write(b"x")
                    await writer.drain()
        await asyncio.sleep(1)


def _draw_bombs() -> list[bytes]:
    large = Image.fromarray(np.zeros((5000, 5000), np.uint8))
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8))
    files = []
    for image, format, options in ((large, "PNG", {}), (noise, "JPEG", {"progressive": True}), (large, "BMP", {})):
        file = io.BytesIO()
        image.save(file, format, **options)
        files.append(file.getvalue()[:15_000_000])
    return files


if __name__ == "__main__":
    main()

"""Latency of the service on loopback: one image per request, one and eight requests at a time.

    python benchmarks/serve.py [--model models/model.onnx] [--source faces.zip]     about 15 s on 2 cores

The service runs in a separate process, started with the command that users run. Requests go through plain sockets on
keep-alive connections; each connection sends its next image as soon as it has the answer to the last. Without
--source, the images are the drawn portraits of the built-in sample.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gender_classifier.ingest.sample import draw_sample  # noqa: E402

BOUNDARY = "a-boundary"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "model.onnx")
    parser.add_argument("--source", type=Path, help="zip of images")
    parser.add_argument(
        "--concurrency", type=int, nargs="+", default=[1, 8], help="requests at a time, a row each (default: 1 8)"
    )
    parser.add_argument(
        "--requests", type=int, default=3000, help="per row, after 200 that are not timed (default: 3000)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("arguments", nargs="*", help="options for `gender-classifier serve`, after --")
    options = parser.parse_args()
    requests = [_build_request(data) for data in _read_images(options.source)]
    command = [sys.executable, "-m", "gender_classifier", "serve", "--port", "0", "--model", str(options.model)]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    service = subprocess.Popen(
        [*command, *options.arguments], env=environment, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    rows = []
    try:
        assert service.stdout is not None
        port = int(re.findall(r"http://127\.0\.0\.1:(\d+)", service.stdout.readline())[0])
        for concurrency in options.concurrency:
            asyncio.run(_drive(port, requests, concurrency, 200))
            began = time.perf_counter()
            seconds = asyncio.run(_drive(port, requests, concurrency, options.requests))
            elapsed = time.perf_counter() - began
            p50, p99 = np.percentile(seconds, [50, 99]) * 1e3
            rows.append(
                {
                    "concurrency": concurrency,
                    "p50_ms": p50,
                    "p99_ms": p99,
                    "max_ms": max(seconds) * 1e3,
                    "requests_per_s": len(seconds) / elapsed,
                }
            )
    finally:
        service.terminate()
        service.wait(30)
    print(f"{options.requests} requests per row, one image per request; {os.cpu_count()} cores, {platform.machine()}")
    print("concurrency   p50 ms   p99 ms   max ms   requests/s")
    for row in rows:
        print(
            f"{row['concurrency']:11d} {row['p50_ms']:8.2f} {row['p99_ms']:8.2f} {row['max_ms']:8.2f} "
            f"{row['requests_per_s']:12.0f}"
        )
    if options.json:
        options.json.write_text(json.dumps({"requests": options.requests, "rows": rows}, indent=2) + "\n")


def _read_images(source: Path | None, count: int = 200) -> list[bytes]:
    if source is None:
        images = (data for name, data in draw_sample(42) if name.startswith("Validation/"))
        return list(islice(images, count))
    with zipfile.ZipFile(source) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png"))]
        return [archive.read(name) for name in names[:count]]


def _build_request(data: bytes) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="face.jpg"\r\n\r\n'
    body = head.encode() + data + f"\r\n--{BOUNDARY}--\r\n".encode()
    return (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def _drive(port: int, requests: Sequence[bytes], concurrency: int, count: int) -> list[float]:
    """Send ``count`` requests; return the latency of each, s."""
    left = iter(range(count))
    seconds: list[float] = []

    async def send_all() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in left:
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", head)
            assert head.startswith(b"HTTP/1.1 200"), head
            assert found, head
            await reader.readexactly(int(found[1]))
            seconds.append(time.perf_counter() - began)
        writer.close()

    await asyncio.gather(*(send_all() for _ in range(concurrency)))
    return seconds


if __name__ == "__main__":
    main()

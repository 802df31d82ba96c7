"""Images that strangers send, decoded in processes of their own: with a deadline, and with a limit of memory.

A decoder that hangs, crashes or fills the memory takes its process with it; the image is refused, and the next one gets
a new process. Each process is started without this one's modules or open files, and ends when this one is gone.
"""

import json
import os
import queue
import signal
import struct
import subprocess
import sys
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.images import MAX_BYTES_PER_PIXEL
from gender_classifier.errors import ImageError, ServiceError

DEADLINE = 5.0
"""s for one image. The slowest one that is accepted, 25 million px, takes some 1.5 s on one core."""

_SPARE_BYTES = 128 * 2**20
"""What codecs and the interpreter may take beside image and file."""

_FAREWELL = 0.5
"""s that a process whose pipes are closed has to end by itself, so that its status says what ended it."""

IMAGE, ARRAY, REFUSED, REFUSED_AND_FULL = b"?", b"=", b"!", b"-"
"""Kinds of messages. A process that keeps much memory after it refused an image ends, and is replaced."""

_HEAD = struct.Struct("<cI")

# Its sys.path is this process's: `-m` would put the working folder in front, whoever writes there.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gender_classifier.serve.decoding_process import serve; "
    "serve(*map(float, sys.argv[2:]))"
)


class Decoders:
    """A fixed number of decoding processes."""

    def __init__(self, count: int, *, image_size: int, max_pixels: int, max_bytes: int, min_side: int = 1) -> None:
        """Prepare ``count`` processes; each starts with its first image, which takes some 0.2 s.

        Args:
            count: processes.
            image_size: S, px.
            max_pixels: larger images are refused.
            max_bytes: of the longest file.
            min_side: px; images with a shorter side are refused.
        """
        memory = MAX_BYTES_PER_PIXEL * max_pixels + 4 * max_bytes + _SPARE_BYTES
        self._arguments = [str(number) for number in (image_size, min_side, max_pixels, DEADLINE, memory)]
        self._shape = (image_size, image_size, 3)
        # As many threads as processes: each takes the process that was used last.
        self._threads = ThreadPoolExecutor(count, "decode")
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)
        self._waiting, self._busy, self._started = set[Future[NDArray[np.uint8]]](), set[_Process](), set[_Process]()
        weakref.finalize(self, _end_all, self._started)

    def submit(self, data: bytes) -> Future[NDArray[np.uint8]]:
        """Begin to do what :func:`~gender_classifier.data.images.to_array` does, as soon as a process is free.

        The future's error is an ImageError as there; one of ``too_slow`` or ``too_large``, where the image takes more
        time or memory than it is given; or a ServiceError, where no process can be started.
        """
        future = self._threads.submit(self._decode, data)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def stop(self) -> None:
        """Cancel what waits, and end what is being decoded, on the spot; later images are decoded again."""
        for future in tuple(self._waiting):
            future.cancel()
        for process in tuple(self._busy):
            process.kill()

    def _decode(self, data: bytes) -> NDArray[np.uint8]:
        process = self._idle.get()
        try:
            if process is not None and process.poll() is not None:  # killed from outside while it was idle
                self._drop(process)
                process = None
            process = process or self._start()
            self._busy.add(process)
            kind, content = _ask(process, data)
            self._busy.discard(process)
            if kind == ARRAY:
                return np.frombuffer(content, np.uint8).reshape(self._shape)
            if kind != REFUSED:
                status = self._drop(process)
                process = None
            if kind in (REFUSED, REFUSED_AND_FULL):
                reason, message = content.decode().split("\n")
                raise ImageError(reason, message)
            raise _explain_end(status)
        finally:
            self._idle.put(process)

    def _drop(self, process: "_Process") -> int:
        """End a process and return its status."""
        self._started.discard(process)
        return _end(process)

    def _start(self) -> "_Process":
        command = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path), *self._arguments]
        try:
            process = subprocess.Popen(  # noqa: S603  this interpreter and program
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=os.environ | _ONE_THREAD
            )
        except OSError as error:
            raise ServiceError(f"a decoding process cannot be started ({error.strerror})") from None
        self._started.add(process)
        return process


def _explain_end(status: int) -> ImageError:
    if status == -signal.SIGALRM:
        return ImageError("too_slow", f"takes more than {DEADLINE:g} s to decode; save it again, as JPEG or PNG")
    return ImageError("unreadable", f"the decoder ended without an answer (status {status}); save it again, as PNG")


_Process = subprocess.Popen[bytes]


def _ask(process: _Process, data: bytes) -> tuple[bytes, bytes]:
    """Return kind and content of the answer; two empty ones where the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        write_message(process.stdin, IMAGE, data)
        return read_message(process.stdout)
    except OSError:
        return b"", b""


_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # each would reserve memory


def write_message(file: IO[bytes], kind: bytes, content: bytes) -> None:
    """Write a message of one byte's ``kind``."""
    _write_all(file, _HEAD.pack(kind, len(content)))
    _write_all(file, content)


def read_message(file: IO[bytes]) -> tuple[bytes, bytes]:
    """Return kind and content of the next message; two empty ones at the end.

    Raises:
        OSError: the pipe broke.
    """
    head = _read_exactly(file, _HEAD.size)
    if len(head) < _HEAD.size:
        return b"", b""
    kind, length = _HEAD.unpack(head)
    content = _read_exactly(file, length)
    return (kind, content) if len(content) == length else (b"", b"")


def _read_exactly(file: IO[bytes], length: int) -> bytes:
    parts, missing = list[bytes](), length
    while missing and (part := file.read(missing)):
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def _write_all(file: IO[bytes], data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _end_all(processes: set[_Process]) -> None:
    while processes:
        _end(processes.pop())


def _end(process: _Process) -> int:
    """Close a process's pipes, end it if it lives, and return its status."""
    for file in (process.stdin, process.stdout):
        if file is not None:
            file.close()
    try:
        return process.wait(_FAREWELL)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()

"""Decoding of untrusted images in separate processes, with a deadline and a memory limit.

A decoder that hangs, crashes or fills the memory takes only its process down: the image is rejected, and the next one
gets a new process. Processes inherit neither modules nor open files, and end when the service is gone.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing import Pipe

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.images import MAX_BYTES_PER_PIXEL, Crop
from gender_classifier.errors import ImageError, ServiceError

DEADLINE = 5.0
"""s per image. The slowest accepted image, 25 million px, takes about 1.5 s on one core."""

_SPARE_BYTES = 128 * 2**20
"""Memory for codecs and the interpreter, beside image and file."""

_EXIT_SECONDS = 0.5
"""s to exit after the connection is closed, so that the exit status tells the cause."""

ARRAY, REFUSED, REFUSED_AND_FULL = b"=", b"!", b"-"
"""First byte of an answer. After REFUSED_AND_FULL the process exits, since the image left it with too much memory."""

# `-m` would put the working folder, to which others may write, in front of sys.path.
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from gender_classifier.serve.decoding_process import serve; "
    "serve(*map(float, sys.argv[2:]))"
)

_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # every thread would reserve memory


class Decoders:
    """A pool of decoding processes."""

    def __init__(
        self,
        count: int,
        *,
        image_size: int,
        max_pixels: int,
        max_bytes: int,
        min_side: int = 1,
        crop: Crop | None = None,
    ) -> None:
        """Prepare ``count`` processes; each starts with its first image, which takes about 0.2 s.

        Args:
            count: processes.
            image_size: S, px.
            max_pixels: larger images are rejected.
            max_bytes: size of the largest file.
            min_side: px; images with a shorter side are rejected.
            crop: which images lose their sides.
        """
        memory = MAX_BYTES_PER_PIXEL * max_pixels + 4 * max_bytes + _SPARE_BYTES
        numbers = (image_size, min_side, max_pixels, DEADLINE, memory, *(crop or (0, 0)))
        self._arguments = [str(number) for number in numbers]
        self._shape = (image_size, image_size, 3)
        # As many threads as processes; each takes the most recently used process.
        self._threads = ThreadPoolExecutor(count, "decode")
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)
        self._waiting, self._busy, self._started = set[Future[NDArray[np.uint8]]](), set[_Process](), set[_Process]()
        weakref.finalize(self, _end_all, self._started)

    def submit(self, data: bytes) -> Future[NDArray[np.uint8]]:
        """Schedule :func:`~gender_classifier.data.images.to_array` for an image file's content.

        The future's exception is the ImageError of that function; one with the reason ``too_slow`` or ``too_large``, if
        the image exceeds its time or memory; or a ServiceError, if no process can be started.
        """
        future = self._threads.submit(self._decode, data)
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    def stop(self) -> None:
        """Cancel waiting images and kill busy processes; images submitted later are decoded again."""
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
            answer = process.ask(data)
            self._busy.discard(process)
            kind, content = answer[:1], answer[1:]
            if kind == ARRAY:
                return np.frombuffer(content, np.uint8).reshape(self._shape)
            if kind != REFUSED:
                status = self._drop(process)
                process = None
            if kind in (REFUSED, REFUSED_AND_FULL):
                reason, message = content.decode().split("\n")
                raise ImageError(reason, message)
            if status == -signal.SIGALRM:
                raise ImageError("too_slow", f"takes more than {DEADLINE:g} s to decode; save it again, as JPEG or PNG")
            raise ImageError(
                "unreadable", f"the decoder ended without an answer (status {status}); save it again, as PNG"
            )
        finally:
            self._idle.put(process)

    def _start(self) -> "_Process":
        try:
            process = _Process(self._arguments)
        except OSError as error:
            raise ServiceError(f"a decoding process cannot be started ({error.strerror})") from None
        self._started.add(process)
        return process

    def _drop(self, process: "_Process") -> int:
        self._started.discard(process)
        return process.end()


class _Process(subprocess.Popen[bytes]):
    """A decoding process, and the connection to it."""

    def __init__(self, arguments: Iterable[str]) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(sys.path), *arguments]
        with theirs:
            super().__init__(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=os.environ | _ONE_THREAD)

    def ask(self, data: bytes) -> bytes:
        """Return the answer about an image, or an empty one if the process has ended."""
        try:
            self._connection.send_bytes(data)
            return self._connection.recv_bytes()
        except (EOFError, OSError):
            return b""

    def end(self) -> int:
        """Close the connection, kill the process if it does not exit, and return its status."""
        self._connection.close()
        try:
            return self.wait(_EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.wait()


def _end_all(processes: set[_Process]) -> None:
    while processes:
        processes.pop().end()

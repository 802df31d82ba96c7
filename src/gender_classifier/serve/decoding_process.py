"""The program of a decoding process: images come in, arrays or reasons for a refusal go out."""

import os
import resource
import signal
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

from gender_classifier.data.images import Crop, to_array
from gender_classifier.errors import ImageError
from gender_classifier.serve.decoding import ARRAY, REFUSED, REFUSED_AND_FULL


def serve(
    image_size: float, min_side: float, max_pixels: float, deadline: float, memory: float, above: float, aspect: float
) -> None:
    """Answer on the socket that is standard input until the service closes it.

    Args:
        image_size: S, px.
        min_side: px; images with a shorter side are rejected.
        max_pixels: larger images are rejected.
        deadline: s per image, after which the kernel ends this process, whatever the decoder is doing.
        memory: bytes of address space, in addition to those used at the start.
        above: with ``aspect``, which images lose their sides; 0 for none.
        aspect: width over height that is left of them.
    """
    # Ctrl-C or a signal to the whole group is handled by the service, which may still need answers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    enough = _limit_memory(int(memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.filterwarnings("ignore", module="PIL")
    connection: Connection = Connection(os.dup(0))
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # codecs print messages about damaged files
        os.dup2(null, descriptor)
    is_full, crop = False, Crop(above, aspect) if above else None
    with suppress(EOFError, OSError):  # the service is gone
        while not is_full:
            data = connection.recv_bytes()
            signal.setitimer(signal.ITIMER_REAL, deadline)
            kind, content = _answer(data, int(image_size), int(min_side), int(max_pixels), crop)
            signal.setitimer(signal.ITIMER_REAL, 0)
            is_full = kind == REFUSED and _measure_memory() > enough
            connection.send_bytes((REFUSED_AND_FULL if is_full else kind) + content)
    os._exit(0)  # there is nothing to flush


def _limit_memory(memory: int) -> float:
    """Limit the address space; return above how many bytes the process should be replaced after a refusal."""
    used = _measure_memory()
    if not used:  # not Linux; macOS does not enforce such limits either
        return float("inf")
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    return used + memory / 4


def _measure_memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _answer(data: bytes, image_size: int, min_side: int, max_pixels: int, crop: Crop | None) -> tuple[bytes, bytes]:
    try:
        return ARRAY, to_array(data, image_size, max_pixels=max_pixels, min_side=min_side, crop=crop).tobytes()
    except ImageError as error:
        return REFUSED, f"{error.reason}\n{' '.join(str(error).split())}".encode(errors="backslashreplace")
    except MemoryError:
        return REFUSED, b"too_large\nneeds more memory than there is"

"""What runs in a decoding process: images from standard input, arrays or reasons to standard output."""

import os
import resource
import signal
import warnings
from pathlib import Path

from gender_classifier.data.images import to_array
from gender_classifier.errors import ImageError
from gender_classifier.serve.decoding import ARRAY, IMAGE, REFUSED, REFUSED_AND_FULL, read_message, write_message


def serve(image_size: float, min_side: float, max_pixels: float, deadline: float, memory: float) -> None:
    """Answer until standard input ends, that is, until the service is gone.

    Args:
        image_size: S, px.
        min_side: px; images with a shorter side are refused.
        max_pixels: larger images are refused.
        deadline: s; the kernel ends this process where an image takes longer, whatever the decoder is at.
        memory: bytes of address space, beside those that are in use at the start.
    """
    # The terminal's Ctrl-C, or a stop of a whole group, is the service's to judge: it may still want answers.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    enough = _limit_memory(int(memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.filterwarnings("ignore", module="PIL")
    requests = os.fdopen(os.dup(0), "rb", buffering=0)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):  # codecs write remarks on damaged files
        os.dup2(null, descriptor)
    while (message := read_message(requests))[0] == IMAGE:
        signal.setitimer(signal.ITIMER_REAL, deadline)
        kind, content = _answer(message[1], int(image_size), int(min_side), int(max_pixels))
        signal.setitimer(signal.ITIMER_REAL, 0)
        full = kind == REFUSED and _measure_memory() > enough
        try:
            write_message(answers, REFUSED_AND_FULL if full else kind, content)
        except OSError:  # the service is gone
            break
        if full:
            break
    os._exit(0)  # nothing is left to be written


def _limit_memory(memory: int) -> float:
    """Return how many bytes of address space are no reason to end."""
    used = _measure_memory()
    if not used:  # not Linux; macOS does not keep such limits either
        return float("inf")
    resource.setrlimit(resource.RLIMIT_AS, (used + memory, used + memory))
    return used + memory / 4


def _measure_memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return 0


def _answer(data: bytes, image_size: int, min_side: int, max_pixels: int) -> tuple[bytes, bytes]:
    try:
        return ARRAY, to_array(data, image_size, max_pixels=max_pixels, min_side=min_side).tobytes()
    except ImageError as error:
        return REFUSED, f"{error.reason}\n{' '.join(str(error).split())}".encode(errors="backslashreplace")
    except MemoryError:
        return REFUSED, b"too_large\nneeds more memory than there is"

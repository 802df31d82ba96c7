"""Processes: which one a run belongs to, whether it lives, who started it, how many share the machine."""

import ctypes
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from gender_classifier.common.paths import find_main_root
from gender_classifier.common.threads import count_cores, count_scheduled

_HOST, _PID, _STARTED = "process.host", "process.pid", "process.started"

# Of <malloc.h>: mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**30

_SHELLS = {"sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "zsh"}


def identify_process() -> dict[str, str]:
    """Return tags that tell this process from every other: host, number, and when it started (s since 1970)."""
    own = psutil.Process()
    return {_HOST: socket.gethostname(), _PID: str(own.pid), _STARTED: f"{own.create_time():.2f}"}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Whether ``tags`` name a process of this host that has ended. What cannot be known is taken to live."""
    if tags.get(_HOST) != socket.gethostname():
        return False
    try:
        process = psutil.Process(int(tags[_PID]))
        same = abs(process.create_time() - float(tags[_STARTED])) < 1
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (KeyError, ValueError, psutil.Error):
        return False


_stopped = threading.Event()


def note_stop() -> None:
    """Remember that a signal told this process to end; for signal handlers."""
    _stopped.set()


def is_stopped() -> bool:
    """Whether a signal has told this process to end: what a library makes of that exception is no failure then."""
    return _stopped.is_set()


def stop_with_dvc(period: float = 0.5) -> None:
    """Send this process SIGTERM once the DVC command that started it is gone.

    SIGTERM and SIGKILL end ``dvc`` and leave its stage running; a second ``dvc repro`` would then work beside it
    on the same files. Started by hand (no ``DVC_STAGE``), a stage has nobody to follow.

    Args:
        period: seconds between two looks.
    """
    if "DVC_STAGE" not in os.environ:
        return
    starter = _find_starter()
    if starter is None:
        os.kill(os.getpid(), signal.SIGTERM)
        return

    def follow(process: psutil.Process) -> None:
        while _lives(process):
            time.sleep(period)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, args=(starter,), name="stop-with-dvc", daemon=True).start()


def count_queue_workers(root: Path) -> int:
    """Count the workers that ``dvc queue start -j N`` runs for the DVC repository at ``root``, by their PID files."""
    return sum(_is_queue_worker(path) for path in (root / ".dvc" / "tmp" / "exps" / "celery").glob("*.pid"))


def _is_queue_worker(path: Path) -> bool:
    try:
        process = psutil.Process(int(path.read_text()))
        return _lives(process) and "queue-worker" in process.cmdline()
    except (OSError, ValueError, psutil.Error):
        return False


def share_threads(root: Path) -> int | None:
    """Return how many threads this stage may use; None where PyTorch's own choice is right, or OpenMP is told.

    A job of ``dvc queue start -j N`` gets its part of the processors, and a container with a quota as many as that
    pays for.

    Args:
        root: the folder the stage runs in.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores, workers = count_cores(), 1
    if find_main_root(root) != root.resolve():  # in a copy: the repository that was copied owns the queue
        workers = max(count_queue_workers(Path(os.environ["DVC_ROOT"])), 1)
    threads = max(1, cores // workers)
    return threads if threads < count_scheduled() else None


def keep_freed_memory() -> bool:
    """Ask glibc to keep what this process frees for its next use; with any other C library, nothing happens.

    A training step frees and asks for the same megabytes again and again. glibc by itself hands them back to the
    kernel, which clears them again, page by page: 7 % of a step of 128 images. Who sets ``MALLOC_*`` or
    ``GLIBC_TUNABLES`` in the environment has decided already.

    Returns:
        Whether it was done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _KEEP_BYTES) for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))


def _find_starter() -> psutil.Process | None:
    """Return the first ancestor that is no shell; None if the starter is gone and init has taken its place."""
    for ancestor in psutil.Process().parents():
        try:
            if ancestor.name() in _SHELLS and ancestor.pid != 1:
                continue
            is_init = ancestor.pid == 1 and not _may_be_dvc(ancestor)
        except psutil.Error:
            return None
        return None if is_init else ancestor
    return None


def _may_be_dvc(process: psutil.Process) -> bool:
    """Tell DVC, or a Python program that uses it, as the first process of a container from an init."""
    command = process.cmdline()
    return "dvc" in " ".join(command) or Path(command[0] if command else "").name.startswith("python")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

"""Processes: identity, liveness, parent, and the share of the machine's processors."""

import ctypes
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil

from gender_classifier.common.paths import find_main_root
from gender_classifier.common.threads import count_cores, count_scheduled

_HOST, _PID, _STARTED = "process.host", "process.pid", "process.started"

# From <malloc.h>; see mallopt(3).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEEP_BYTES = 2**30

_SHELLS = {"sh", "ash", "bash", "busybox", "csh", "dash", "fish", "ksh", "mksh", "tcsh", "zsh"}


def identify_process() -> dict[str, str]:
    """Return tags that identify this process: host, PID, and when it started (s since 1970)."""
    process = psutil.Process()
    return {_HOST: socket.gethostname(), _PID: str(process.pid), _STARTED: f"{process.create_time():.2f}"}


def is_dead(tags: Mapping[str, str]) -> bool:
    """Return True if ``tags`` name a process of this host that has ended; False where this cannot be known."""
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


class _Stop:
    """A stop signal: whether it came, the blocks that end first, and the exception that waits for them."""

    came = False
    blocks = 0
    waiting: BaseException | None = None


_stop = _Stop()


def stop(how: BaseException) -> None:
    """Record that a stop signal was received, and raise ``how``, if need be after :func:`finish_first`.

    To be called by signal handlers.
    """
    _stop.came = True
    _stop.waiting = how
    _raise_waiting()


def is_stopped() -> bool:
    """Return True once a stop signal was received; exceptions raised afterwards are not failures."""
    return _stop.came


@contextmanager
def finish_first() -> Iterator[None]:
    """Let the block end before a stop signal raises its exception, which otherwise may be anywhere in it.

    Python handles signals in its main thread; blocks of others are left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _stop.blocks += 1
    try:
        yield
    finally:
        _stop.blocks -= 1
        _raise_waiting()


def _raise_waiting() -> None:
    if _stop.waiting is not None and not _stop.blocks:
        how, _stop.waiting = _stop.waiting, None
        raise how


def stop_with_dvc(period: float = 0.5) -> None:
    """Send this process SIGTERM once the DVC command that started it is gone.

    SIGTERM and SIGKILL end ``dvc`` but not its stage, and a second ``dvc repro`` would then write the same files.
    Nothing happens in a stage started by hand (no ``DVC_STAGE``).

    Args:
        period: seconds between checks.
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
    """Return how many threads this stage may use; None where PyTorch's default is right or ``OMP_NUM_THREADS`` is set.

    The jobs of ``dvc queue start -j N`` share the processors, and a container with a quota gets no more than that.

    Args:
        root: folder in which the stage runs.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return None
    cores, workers = count_cores(), 1
    if find_main_root(root) != root.resolve():  # the queue belongs to the repository that was copied
        workers = max(count_queue_workers(Path(os.environ["DVC_ROOT"])), 1)
    threads = max(1, cores // workers)
    return threads if threads < count_scheduled() else None


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for reuse; with any other C library, do nothing.

    Each training step frees and allocates the same megabytes. By default glibc returns them to the kernel, which
    clears every page again: 7 % of a step of 128 images. ``MALLOC_*`` and ``GLIBC_TUNABLES`` in the environment take
    precedence.

    Returns:
        True if it was done.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(option, _KEEP_BYTES) for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD))


def _find_starter() -> psutil.Process | None:
    """Return the first ancestor that is not a shell; None if the starter is gone and init has taken its place."""
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
    """Return True for DVC, or a Python program that may use it, as opposed to the init of a container."""
    command = process.cmdline()
    return "dvc" in " ".join(command) or Path(command[0] if command else "").name.startswith("python")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False

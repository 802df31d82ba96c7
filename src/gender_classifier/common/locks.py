"""File locks between processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from gender_classifier.errors import LockError


@contextmanager
def hold_lock(path: Path, *, on_wait: Callable[[], object] = lambda: None, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file ``path`` until the block ends; wait for a process that holds it.

    Args:
        path: the lock file; created if missing, and kept.
        on_wait: called once if another process holds the lock.
        timeout: most seconds to wait; negative for no limit.

    Raises:
        filelock.Timeout: another process still holds it after ``timeout``.
        LockError: the file cannot be created, or its file system has no locks.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait()
            lock.acquire(timeout=timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise LockError(
            f"{path}: cannot be locked ({reason}); check that the folder is writable, and on a local disk or a network "
            "file system with locks"
        ) from None
    try:
        yield
    finally:
        lock.release()

"""Processors that this process may use, and work cut into batches for them."""

import math
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TypeVar

T = TypeVar("T")

_CGROUPS = Path("/sys/fs/cgroup")
_CGROUPS_OF_PROCESS = Path("/proc/self/cgroup")


def count_cores() -> int:
    """Return the number of processors that the scheduler and the control groups allow, at least 1.

    A container started with ``--cpus 2`` sees all processors of its host, but gets the time of two.
    """
    return max(
        1, min([count_scheduled(), *(math.ceil(quota) for quota in _read_quotas(_CGROUPS, _CGROUPS_OF_PROCESS))])
    )


def count_scheduled() -> int:
    """Return the number of processors that the scheduler allows this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_thread_limit() -> int | None:
    """Return the thread limit for a library that counts processors itself; None where its count is right."""
    cores = count_cores()
    return cores if cores < count_scheduled() else None


def chunk(items: Iterable[T], size: int, *, first: int | None = None) -> Iterator[list[T]]:
    """Yield ``items`` in lists of ``size``; the last one may be shorter.

    Args:
        items: consumed as the lists are.
        size: items a list.
        first: items in each of the first four lists; this doubles after every four lists, up to ``size``, so that the
            first results come soon and few items are spread over all workers. None starts with ``size``.
    """
    remaining, current, count = iter(items), first or size, 0
    while batch := list(islice(remaining, current)):
        yield batch
        count += 1
        if count % 4 == 0:
            current = min(2 * current, size)


def _read_quotas(root: Path, listing: Path) -> Iterator[float]:
    """Yield the quota, in processors, of each control group of this process and their parents; version 1 and 2."""
    for folder in _find_groups(root, listing):
        quota, period = [*_read(folder / "cpu.max").split(), "", ""][:2]
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit() and int(period):  # neither "max" nor -1: no limit
            yield int(quota) / int(period)


def _find_groups(root: Path, listing: Path) -> Iterator[Path]:
    for line in _read(listing).splitlines():
        _, controllers, name = [*line.split(":", 2), "", "", ""][:3]
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / controllers if controllers else root
        path = PurePosixPath(name.lstrip("/"))
        # In a container these are often the host's names; missing folders read as no limit.
        yield from (base / place for place in (path, *path.parents))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""

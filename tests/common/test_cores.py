"""Processors are counted as the scheduler and the control groups allow, from files as Linux writes them."""

import os
from pathlib import Path

import pytest

from gender_classifier.common import threads as cores


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the root of the control groups of a machine whose scheduler allows 16 processors, without any limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(cores, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_CGROUPS_OF_PROCESS", tmp_path / "own")
    return tmp_path


def test_without_a_limit_the_scheduler_decides(machine: Path) -> None:
    assert (cores.count_cores(), cores.find_thread_limit()) == (16, None)
    write(machine / "own", "0::/user.slice\n")
    write(machine / "cgroup/user.slice/cpu.max", "max 100000\n")
    assert (cores.count_cores(), cores.find_thread_limit()) == (16, None)


@pytest.mark.parametrize(("limit", "count"), [("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)])
def test_a_quota_of_version_2_counts(machine: Path, limit: str, count: int) -> None:
    write(machine / "own", "0::/docker/abc\n")
    write(machine / "cgroup/docker/cpu.max", limit)
    write(machine / "cgroup/docker/abc/cpu.max", "max 100000")
    assert (cores.count_cores(), cores.find_thread_limit()) == (count, count)


def test_a_quota_of_version_1_counts(machine: Path) -> None:
    write(machine / "own", "11:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n")
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n")  # in the container the path is the root's
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert cores.count_cores() == 3
    write(machine / "cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n")
    assert cores.count_cores() == 16


@pytest.mark.parametrize("text", ["", "nonsense", "1 2", "max", "\xff\xfe"])
def test_what_cannot_be_understood_is_no_limit(machine: Path, text: str) -> None:
    write(machine / "own", "0::/\n::\nx\n")
    (machine / "cgroup").mkdir()
    (machine / "cgroup/cpu.max").write_bytes(text.encode("latin-1"))
    assert cores.count_cores() == (1 if text == "1 2" else 16)

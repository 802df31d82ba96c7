from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gender_classifier.archive import write_archive
from gender_classifier.errors import ArchiveError, ImageError
from gender_classifier.parallel import map_members

MEMBERS = {f"Training/female/{number:04}.jpg": bytes([number % 256]) * (number % 97) for number in range(1000)}
NAMES = sorted(MEMBERS)


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "raw.zip"
    write_archive(path, sorted(MEMBERS.items()))
    return path


def pair(name: str, data: bytes) -> tuple[str, bytes]:
    return name, data


def tell_process(name: str, data: bytes) -> int:
    return os.getpid()


def refuse(name: str, data: bytes) -> None:
    raise ImageError("truncated", f"{name} ends early")


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_member_comes_once_and_in_the_order_asked_for(raw: Path, workers: int) -> None:
    asked = NAMES[::-1]
    assert list(map_members(raw, asked, pair, workers=workers)) == [(name, MEMBERS[name]) for name in asked]


def test_workers_are_other_processes_and_are_gone_afterwards(raw: Path) -> None:
    used = set(map_members(raw, NAMES, tell_process, workers=2))
    assert os.getpid() not in used
    assert set(map_members(raw, NAMES, tell_process)) == {os.getpid()}  # few members: not worth starting others
    assert not [pid for pid in used if psutil.pid_exists(pid)]


def test_an_abandoned_map_stops_its_processes(raw: Path) -> None:
    results = map_members(raw, NAMES, tell_process, workers=2)
    pid = next(results)
    assert psutil.pid_exists(pid)
    results.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_function_reaches_the_caller_whole(raw: Path, workers: int) -> None:
    with pytest.raises(ImageError, match=r"0000\.jpg ends early") as caught:
        list(map_members(raw, NAMES, refuse, workers=workers))
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_that_is_not_there_is_named(raw: Path, workers: int) -> None:
    with pytest.raises(ArchiveError, match="has no member 'absent.jpg'"):
        list(map_members(raw, ["absent.jpg"], pair, workers=workers))


def test_a_killed_parent_leaves_no_worker(raw: Path) -> None:
    code = f"""
import time
from pathlib import Path
from test_parallel import NAMES, tell_process
from gender_classifier.parallel import map_members
results = map_members(Path({str(raw)!r}), NAMES, tell_process, workers=2)
print(next(results), flush=True)
time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[1] / 'src'}{os.pathsep}{Path(__file__).parent}"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)

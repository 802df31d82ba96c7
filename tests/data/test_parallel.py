import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from gender_classifier.data.archive import Archive, write_archive
from gender_classifier.data.parallel import map_members
from gender_classifier.errors import ArchiveError, ImageError

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


def leave_trace(name: str, data: bytes, folder: Path) -> None:
    (folder / name.replace("/", "-")).touch()


def refuse(name: str, data: bytes) -> None:
    raise ImageError("truncated", f"{name} ends early")


def apply(raw: Path, names: list[str], function: Any, workers: int | None) -> list[Any]:
    with Archive(raw) as archive, map_members(archive, names, function, workers=workers, ahead=256) as found:
        return list(found)


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_every_member_comes_once_and_in_the_order_asked_for(raw: Path, workers: int) -> None:
    asked = NAMES[::-1]
    assert apply(raw, asked, pair, workers) == [(name, MEMBERS[name]) for name in asked]


def test_workers_are_other_processes_and_are_gone_afterwards(raw: Path) -> None:
    used = set(apply(raw, NAMES, tell_process, 2))
    assert os.getpid() not in used
    assert set(apply(raw, NAMES, tell_process, None)) == {os.getpid()}  # few members: not worth starting others
    assert not [pid for pid in used if psutil.pid_exists(pid)]


def test_an_abandoned_map_stops_its_processes(raw: Path) -> None:
    with Archive(raw) as archive, map_members(archive, NAMES, tell_process, workers=2, ahead=256) as found:
        pid = next(found)
        assert psutil.pid_exists(pid)
    assert not psutil.pid_exists(pid)


def test_work_begins_before_the_first_result_is_taken_and_goes_no_further_than_told(raw: Path, tmp_path: Path) -> None:
    note = partial(leave_trace, folder=tmp_path)
    with Archive(raw) as archive, map_members(archive, NAMES, note, workers=2, ahead=128) as found:
        deadline = time.monotonic() + 30
        while len(list(tmp_path.iterdir())) < 128:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)
        assert len(list(tmp_path.iterdir())) == 128
        assert len(list(found)) == len(NAMES)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_the_function_reaches_the_caller_whole(raw: Path, workers: int) -> None:
    with pytest.raises(ImageError, match=r"0000\.jpg ends early") as caught:
        apply(raw, NAMES, refuse, workers)
    assert caught.value.reason == "truncated"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_member_that_is_not_there_is_named(raw: Path, workers: int) -> None:
    with pytest.raises(ArchiveError, match="has no member 'absent.jpg'"):
        apply(raw, ["absent.jpg"], pair, workers)


def test_a_killed_parent_leaves_no_worker(raw: Path) -> None:
    code = f"""
import time
from pathlib import Path
from test_parallel import NAMES, tell_process
from gender_classifier.data.archive import Archive
from gender_classifier.data.parallel import map_members
with Archive(Path({str(raw)!r})) as archive, map_members(archive, NAMES, tell_process, workers=2, ahead=256) as found:
    print(next(found), flush=True)
    time.sleep(60)
"""
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parents[2] / 'src'}{os.pathsep}{Path(__file__).parent}"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("error", [OSError(30, "Read-only file system"), ImportError("no sem_open here")])
def test_without_semaphores_one_process_does_it_and_says_so(
    raw: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("gender_classifier.data.parallel.ProcessPoolExecutor", fail)
    assert set(apply(raw, NAMES, tell_process, 2)) == {os.getpid()}
    assert "one process decodes, on one core: more need a writable /dev/shm (" in caplog.text

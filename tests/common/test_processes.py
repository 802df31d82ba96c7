"""Which process a run belongs to, who started it, and how many share the machine: with real processes."""

import json
import os
import platform
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from gender_classifier.common.processes import (
    count_queue_workers,
    identify_process,
    is_dead,
    keep_freed_memory,
    share_threads,
)

SRC = str(Path(__file__).parents[2] / "src")


def test_a_process_is_dead_once_it_has_ended() -> None:
    code = "from gender_classifier.common.processes import identify_process; import json, sys\nprint(json.dumps(identify_process()), flush=True); sys.stdin.read()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with child.stdout:
        tags = json.loads(child.stdout.readline())
    assert not is_dead(tags)
    child.kill()
    time.sleep(0.2)
    assert is_dead(tags)  # a zombie: nobody has waited for it
    child.communicate()
    assert is_dead(tags)


def test_what_cannot_be_known_is_taken_to_live() -> None:
    own = identify_process()
    assert not is_dead(own)
    assert not is_dead({})
    assert not is_dead({**own, "process.host": "elsewhere", "process.pid": "1"})
    assert not is_dead({**own, "process.pid": "many"})
    # The number is taken by a younger process: the run's own is gone.
    assert is_dead({**own, "process.started": "1.0"})


def start_stage(root: Path, *, dvc: bool) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start something that starts a shell, that starts something that calls `stop_with_dvc`, as DVC does."""
    stage = root / "stage.py"
    stage.write_text(
        "import signal, sys, time, pathlib\n"
        "from gender_classifier.common.processes import stop_with_dvc\n"
        "signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path('stopped').touch(), sys.exit(143)))\n"
        "stop_with_dvc(0.1); pathlib.Path('started').touch(); time.sleep(60)\n"
    )
    code = f"import subprocess; subprocess.run('{sys.executable} stage.py; true', shell=True)"
    variables = {"DVC_STAGE": "train"} if dvc else {}
    starter = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env={**os.environ, **variables, "PYTHONPATH": SRC}, text=True
    )
    deadline = time.monotonic() + 30
    while not (root / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(starter.pid).children(recursive=True)
    return starter, next(child for child in children if "stage.py" in child.cmdline())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stage_does_not_outlive_dvc(tmp_path: Path, number: signal.Signals) -> None:
    starter, stage = start_stage(tmp_path, dvc=True)
    starter.send_signal(number)
    starter.wait(10)
    _, alive = psutil.wait_procs([stage], timeout=10)
    assert not alive
    assert (tmp_path / "stopped").exists()


def test_a_stage_started_by_hand_follows_nobody(tmp_path: Path) -> None:
    starter, stage = start_stage(tmp_path, dvc=False)
    starter.kill()
    starter.wait(10)
    time.sleep(1)
    assert stage.is_running()
    stage.kill()


def test_jobs_of_a_queue_share_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workdir = tmp_path / ".dvc" / "tmp" / "exps" / "celery"
    workdir.mkdir(parents=True)
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "tmpabc"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert count_queue_workers(tmp_path) == 0
    code = "import time; time.sleep(60)"
    workers = [
        subprocess.Popen([sys.executable, "-c", code, "exp", "queue-worker", f"dvc-exp-abc-{number}@localhost"])
        for number in (1, 2)
    ]
    for number, worker in enumerate(workers, 1):
        (workdir / f"dvc-exp-worker-{number}.pid").write_text(str(worker.pid))
    (workdir / "dvc-exp-worker-3.pid").write_text(str(os.getpid()))  # left behind; the number is another process's now
    (workdir / "dvc-exp-worker-4.pid").write_text("")
    try:
        deadline = time.monotonic() + 10
        while count_queue_workers(tmp_path) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert count_queue_workers(tmp_path / "another") == 0
        for name in ("count_cores", "count_scheduled"):
            monkeypatch.setattr(f"gender_classifier.common.processes.{name}", lambda: 8)
        assert share_threads(copy) == 4
        assert share_threads(tmp_path) is None  # in the workspace, not in the queue
        monkeypatch.setattr("gender_classifier.common.processes.count_cores", lambda: 1)
        assert share_threads(copy) == share_threads(tmp_path) == 1  # a quota pays for fewer than there are
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert share_threads(copy) is None
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_kept_memory_is_not_fetched_again_from_the_kernel() -> None:
    code = """
import resource, sys
import numpy as np
from gender_classifier.common.processes import keep_freed_memory
assert keep_freed_memory()
np.ones(2**22)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(2**22)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GLIBC_"))}
    environment = kept | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    printed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert int(printed.stdout) < 1000  # each array has 8192 pages


def test_who_has_set_up_the_allocator_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    assert not keep_freed_memory()

"""Trainings that are killed, stopped or run out of disk: they go on and end in the same bits, in one MLflow run."""

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from checkout import SMALL, Checkout, clone

from gender_classifier.track.delivery import catch_up
from gender_classifier.train.checkpoints import load_checkpoint

EPOCHS = 4
PARAMS = {**SMALL, "epochs": EPOCHS, "ingest": {"sample_train": 600, "sample_val": 40}}
RESULTS = (
    "models/model.safetensors", "metrics/curves.csv", "metrics/train.json", "metrics/val_confusion.json",
    "data/predictions/val.csv", "metrics/figures/train/curves.png", "metrics/figures/train/val_confusion.png",
)  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A clone with its arrays made and nothing trained."""
    checkout = clone(tmp_path_factory.mktemp("prepared"), PARAMS)
    checkout.run("dvc", "repro", "preprocess")
    return checkout


@pytest.fixture(scope="module")
def undisturbed(prepared: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = copy(prepared, tmp_path_factory.mktemp("undisturbed") / "copy")
    checkout.run("dvc", "repro", "train")
    return checkout


def copy(checkout: Checkout, folder: Path) -> Checkout:
    shutil.copytree(checkout.folder, folder, symlinks=True, ignore=shutil.ignore_patterns("mlflow.db", "mlartifacts"))
    return Checkout(folder)


def epochs_done(checkout: Checkout) -> int:
    path = checkout.folder / "metrics" / "curves.csv"
    return max(0, len(path.read_text().splitlines()) - 1) if path.exists() else 0


def stages_of(checkout: Checkout) -> list[psutil.Process]:
    """Return the stage scripts that run in the checkout, whoever their parent is by now."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            # A forked stage has the command line of the process that forked it.
            if (
                any(word.startswith("stages/") or word.endswith("warm.py") for word in words)
                and "python" in words[0]
                and (Path(process.cwd()) == checkout.folder)
            ):
                found.append(process)
        except (psutil.Error, IndexError):
            continue
    return found


def train_until(checkout: Checkout, epochs: int, delay: float, *, warm: bool = False) -> subprocess.Popen[bytes]:
    """Start ``dvc repro train`` and return it ``delay`` seconds after the MLflow run is open and ``epochs`` are done.

    With ``warm`` the stage is forked: it can be killed, but does not get signals that are sent to DVC's group.
    """
    opened = checkout.folder / "models" / "mlflow_run.json"
    opened.unlink(missing_ok=True)  # of an earlier start
    process = checkout.start("dvc", "repro", "train", **({"PATH": checkout.warm_path()} if warm else {}))
    deadline = time.monotonic() + 120
    while not (opened.exists() and epochs_done(checkout) >= epochs):
        assert process.poll() is None, (checkout.folder / "started.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(delay)
    return process


def histories(checkout: Checkout, run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = checkout.client
    return {
        key: [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
        for key in client.get_run(run_id).data.metrics
        if key != "train/images_per_second"
    }


def assert_as_undisturbed(checkout: Checkout, undisturbed: Checkout) -> None:
    for path in RESULTS:
        assert (checkout.folder / path).read_bytes() == (undisturbed.folder / path).read_bytes(), path
    runs, expected = checkout.runs(), undisturbed.runs()
    assert len(runs) == len(expected) == 1
    run_id = checkout.read("models/mlflow_run.json")["run_id"]
    assert runs[0].info.run_id == run_id
    assert runs[0].info.status == "FINISHED"
    assert histories(checkout, run_id) == histories(undisturbed, expected[0].info.run_id)
    assert runs[0].data.params == expected[0].data.params
    assert checkout.artifacts(runs[0]) == undisturbed.artifacts(expected[0])
    assert not list(checkout.folder.rglob("*.tmp"))


@pytest.mark.slow
def test_twenty_kills_end_in_the_same_bits(prepared: Checkout, undisturbed: Checkout, tmp_path: Path) -> None:
    """Four trainings, each killed in every epoch and while its results are written; every other kill hits DVC."""
    chance = random.Random(3)

    def kill_and_go_on(number: int, delays: list[float]) -> list[str]:
        checkout, lines = copy(prepared, tmp_path / str(number)), []
        for done, delay in enumerate(delays):
            victim = ("stage", "dvc")[(number + done) % 2]
            process = train_until(checkout, done, delay, warm=victim == "stage")
            stages = stages_of(checkout)
            reached = epochs_done(checkout)
            for target in stages if victim == "stage" else [psutil.Process(process.pid)]:
                target.kill()
            assert process.wait(60) != 0, f"training {number}, epoch {done}: over before the kill"
            psutil.wait_procs(stages, timeout=20)
            catch_up(checkout.client, checkout.folder)
            (run,) = checkout.runs()
            # While the last results are written, the run may be over a moment before its process is.
            assert run.info.status == "KILLED" or (reached == EPOCHS and run.info.status == "FINISHED")
            lines.append(f"{victim} killed {delay:.2f} s after epoch {done}, run {run.info.status}")
        assert "train: going on after epoch" in checkout.run("dvc", "repro", "train").stderr
        assert_as_undisturbed(checkout, undisturbed)
        shutil.rmtree(checkout.folder)
        return lines

    delays = [[chance.uniform(0, 0.6 if done < EPOCHS else 0.3) for done in range(EPOCHS + 1)] for _ in range(4)]
    with ThreadPoolExecutor(2) as pool:
        lines = [line for training in pool.map(kill_and_go_on, range(4), delays) for line in training]
    print(*lines, sep="\n")
    assert len(lines) == 20


@pytest.mark.slow
def test_folds_go_on_after_a_kill(prepared: Checkout, tmp_path: Path) -> None:
    """Killed in the second of three folds: the first is not trained again, and the predictions are the same."""
    checkout = copy(prepared, tmp_path / "copy")
    params = (checkout.folder / "params.yaml").read_text()
    (checkout.folder / "params.yaml").write_text(params.replace("label_folds: 0", "label_folds: 3"))
    whole = copy(checkout, tmp_path / "whole")
    whole.run("dvc", "repro", "train")
    process = train_until(checkout, EPOCHS, 0, warm=True)
    checkpoints, deadline = checkout.folder / ".checkpoints", time.monotonic() + 120
    while len(list(checkpoints.glob("*.safetensors"))) < 3:  # those of the model, of a finished fold and of the next
        assert process.poll() is None, (checkout.folder / "started.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (finished,) = (path for path in checkpoints.glob("*.safetensors") if "held_out" in load_checkpoint(path).tensors)  # type: ignore[union-attr]
    trained, stages = finished.stat().st_mtime_ns, stages_of(checkout)
    for stage in stages:
        stage.kill()
    assert process.wait(60) != 0
    psutil.wait_procs(stages, timeout=20)
    checkout.run("dvc", "repro", "train")
    assert finished.stat().st_mtime_ns == trained
    for path in ("data/predictions/train_folds.csv", "models/model.safetensors", "metrics/curves.csv"):
        assert (checkout.folder / path).read_bytes() == (whole.folder / path).read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGINT to the terminal's group", "SIGTERM to dvc"])
def test_a_stop_takes_seconds_and_leaves_nothing_running(
    prepared: Checkout, undisturbed: Checkout, tmp_path: Path, how: str
) -> None:
    checkout = copy(prepared, tmp_path / "copy")
    process = train_until(checkout, 2, 0.1)
    stages = stages_of(checkout)
    assert stages
    began = time.monotonic()
    if how.startswith("SIGINT"):
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    assert process.wait(20) != 0
    _, alive = psutil.wait_procs(stages, timeout=20)
    assert time.monotonic() - began < 20  # a second on a quiet machine; another suite may run beside this one
    assert not alive
    assert not stages_of(checkout)
    assert [run.info.status for run in checkout.runs()] == ["KILLED"]
    checkout.run("dvc", "repro", "train")
    assert_as_undisturbed(checkout, undisturbed)


@pytest.mark.slow
def test_a_second_repro_is_told_so(prepared: Checkout, tmp_path: Path) -> None:
    checkout = copy(prepared, tmp_path / "copy")
    process = train_until(checkout, 1, 0, warm=True)
    second = checkout.run("dvc", "repro", check=False)
    assert second.returncode != 0
    assert "busy" in second.stderr
    assert process.wait(120) == 0
    assert [run.info.status for run in checkout.runs()] == ["FINISHED"]


def limit_file_size() -> None:
    """Let no file grow above 2 MB: the run store stays below, the large outputs do not."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB: two checkpoints fit, three do not, where the tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "output"),
    [
        ("ingest", "data/raw.zip"),
        ("preprocess", "data/processed/train_images.npy"),
        ("train", "models/model.safetensors"),
        ("evaluate", "models/model.onnx"),
    ],
)
def test_a_file_that_cannot_be_finished_is_not_there(
    undisturbed: Checkout, tmp_path: Path, stage: str, output: str
) -> None:
    """Each stage writes to a disk that takes the first bytes of its largest output and no more."""
    checkout = copy(undisturbed, tmp_path / "copy")
    (checkout.folder / output).unlink(missing_ok=True)
    environment = checkout.environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'elsewhere.db'}", PYTHONPATH="src")
    done = subprocess.run(
        [sys.executable, f"stages/{stage}.py"], cwd=checkout.folder, env=environment, capture_output=True, text=True,
        preexec_fn=limit_file_size, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith(f"{stage}: error: ")]
    assert len(errors) == 1, done.stderr
    assert "check the disk's free space" in errors[0]
    assert not (checkout.folder / output).exists()
    assert not list((checkout.folder / output).parent.glob("*.tmp"))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_whole(
    prepared: Checkout, undisturbed: Checkout, small_disk: Path, tmp_path: Path
) -> None:
    """Checkpoints lie on a disk that fills up in training; with space again, training goes on from the last one."""
    checkout = copy(prepared, tmp_path / "copy")
    (checkout.folder / ".checkpoints").symlink_to(small_disk)
    process = train_until(checkout, 2, 0, warm=True)
    with (small_disk / "filler").open("wb") as filler:
        try:
            while True:
                filler.write(bytes(2**20))
                filler.flush()
        except OSError:
            pass
    assert process.wait(60) != 0
    log = (checkout.folder / "started.log").read_text()
    assert "train: error: " in log
    assert re.search(r"\.safetensors: No space left on device; check the disk's free space", log)
    assert "Traceback" not in log
    kept = [load_checkpoint(path) for path in small_disk.glob("*.safetensors")]
    assert len(kept) == 1
    assert kept[0] is not None
    assert len(kept[0].facts["records"]) >= 2
    (small_disk / "filler").unlink()
    assert "train: going on after epoch" in checkout.run("dvc", "repro", "train").stderr
    assert_as_undisturbed(checkout, undisturbed)

"""Several processes that train together: the same figures as one, one run, and nothing left behind."""

import csv
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
import yaml
from checkout import ROOT
from conftest import client
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from gender_classifier.common.paths import Layout
from gender_classifier.data.dataset import DatasetInfo, write_images, write_index, write_info, write_integers
from gender_classifier.data.names import CLASSES
from gender_classifier.train.distributed import OPTIONS_VARIABLE, World, _choose_options, add_up, broadcast, gather_rows


@given(st.integers(0, 1000), st.integers(1, 9))
def test_the_shares_of_a_batch_are_the_batch_and_split_no_pair(count: int, size: int) -> None:
    shares = [range(count)[World(rank, size).share(count)] for rank in range(size)]
    assert [row for share in shares for row in share] == list(range(count))
    assert all(share.start % 2 == 0 for share in shares if share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 3


def test_alone_nothing_is_exchanged() -> None:
    rows, here = np.ones((3, 2), np.float32), torch.device("cpu")
    assert gather_rows(rows, 3, World(), here) is rows
    assert add_up([1.5, 2], World(), here) == [1.5, 2]
    assert broadcast(b"x", World(), here) == b"x"
    assert World().share(7) == slice(0, 7)


def write_arrays(folder: Path, counts: dict[str, int]) -> None:
    """Write splits of noise with a bright half that tells the label, as ``preprocess`` does."""
    layout = Layout(folder)
    for seed, (name, count) in enumerate(counts.items()):
        rng = np.random.default_rng(seed)
        labels = [number % 2 for number in range(count)]
        images = rng.integers(0, 120, (count, 64, 64, 3), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[32 * (1 - label) :][:32] += np.uint8(60)
        write_images(layout.images_path(name), images, count, 64)
        write_integers(layout.labels_path(name), labels)
        write_index(layout.index_path(name), ((f"{name}/{row}", CLASSES[labels[row]], "") for row in range(count)))
    write_integers(layout.groups_path, range(counts["train"]))
    write_info(layout.dataset_path, DatasetInfo(CLASSES, 64, (0.4,) * 3, (0.2,) * 3, "digest", {}))


def write_params(folder: Path, epochs: int = 3, batch_size: int = 31, **train: Any) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params |= {"epochs": epochs, "batch_size": batch_size, "lr": 0.01}
    # The first steps of Adam divide each gradient by its size, which turns the rounding of a small one into a whole step.
    params["train"] |= {"precision": "fp32", "device": "cpu", "class_balance": "weights", "optimizer": "sgd", **train}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))


def train(folder: Path) -> subprocess.Popen[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "TORCHELASTIC", "RANK"))}
    environment = kept | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(ROOT / "stages" / "train.py")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(folder: Path) -> str:
    with train(folder) as process:
        printed = process.communicate(timeout=300)[0]
    assert process.returncode == 0, printed
    return printed


def read_curves(folder: Path) -> np.ndarray:
    with (folder / "metrics" / "curves.csv").open() as file:
        return np.array([[float(value) for value in row.values()] for row in csv.DictReader(file)])


def read_folds(folder: Path, column: str) -> list[float]:
    with (folder / "data" / "predictions" / "train_folds.csv").open() as file:
        return [float(row[column]) for row in csv.DictReader(file)]


COUNTS = {"train": 63, "val": 25}  # the last batch has one image, and one process none of it


@pytest.fixture
def folder(root: Path) -> Path:
    write_arrays(root, COUNTS)
    return root


def list_listeners(pid: int) -> set[str]:
    """Return the addresses on which a process and its descendants listen."""
    process = psutil.Process(pid)
    found = set()
    for one in (process, *process.children(recursive=True)):
        with suppress(psutil.Error):
            found |= {c.laddr.ip for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


@dataclass(frozen=True)
class Trained:
    """A folder after a training in two processes, what was printed, and the addresses that were listened on meanwhile."""

    folder: Path
    printed: str
    listened: set[str]


@pytest.fixture(scope="module")
def together(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Train in two processes.

    Listeners are looked for from the start to the end: a port of torchrun's that is open for a second is open.
    """
    folder = tmp_path_factory.mktemp("together")
    shutil.copy(empty_store, folder / "mlflow.db")
    (folder / "dvc.yaml").touch()
    write_arrays(folder, COUNTS)
    write_params(folder, processes=2, label_folds=2)
    seen: set[str] = set()
    with train(folder) as process:
        while process.poll() is None:
            seen |= list_listeners(process.pid)
            time.sleep(0.02)
        printed = process.communicate()[0]
    assert process.returncode == 0, printed
    return Trained(folder, printed, seen)


def test_two_processes_give_the_figures_of_one(folder: Path, together: Trained) -> None:
    write_params(folder, label_folds=2)
    finish(folder)
    np.testing.assert_allclose(read_curves(together.folder), read_curves(folder), atol=2e-5)
    for column, tolerance in (("fold", 0), ("prob_male", 1e-3)):
        np.testing.assert_allclose(*(read_folds(one, column) for one in (folder, together.folder)), atol=tolerance)
    weights, others = (load_file(one / "models" / "model.safetensors") for one in (folder, together.folder))
    for name, value in weights.items():
        if name.startswith("unfamiliarity."):  # statistics of features: principal axes follow the rounding of weights
            continue
        # Adam takes steps of one size: a weight whose gradient is nearly 0 may go another way by rounding.
        torch.testing.assert_close(others[name], value, atol=1e-3, rtol=0)
        assert float((others[name] - value).abs().mean()) < 1e-5
    assert together.printed.count("train: best of 3 epochs") == 1
    for trained, processes in ((folder, "1"), (together.folder, "2")):
        store = client(trained)
        (run,) = store.search_runs([store.get_experiment_by_name("gender-classifier").experiment_id])  # type: ignore[union-attr]
        assert (run.data.tags["torch.processes"], run.info.status) == (processes, "FINISHED")
        assert len(store.get_metric_history(run.info.run_id, "val/loss")) == 3


@pytest.mark.slow
def test_a_stopped_training_goes_on_in_both_processes(root: Path) -> None:
    """In bf16, with few images: a processor without it emulates it, at 50 ms an image."""
    folder = root
    write_arrays(folder, {"train": 10, "val": 5})
    write_params(folder, epochs=6, batch_size=4, processes=2, precision="bf16")
    whole = shutil.copytree(folder, folder.parent / "whole")
    finish(whole)
    with train(folder) as process:
        deadline = time.monotonic() + 120
        while not (folder / "metrics" / "curves.csv").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        family = [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]
        process.send_signal(signal.SIGTERM)
        printed = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, printed
    assert not [pid for pid in family if psutil.pid_exists(pid)]
    assert "going on after epoch" in finish(folder)
    assert (folder / "metrics" / "curves.csv").read_bytes() == (whole / "metrics" / "curves.csv").read_bytes()
    ours, theirs = (load_file(one / "models" / "model.safetensors") for one in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.slow
def test_what_is_wrong_is_said_and_ends_all(folder: Path) -> None:
    write_params(folder, processes=2, device="gpu")
    with train(folder) as process:
        printed = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    lines = [line for line in printed.splitlines() if line]
    assert set(lines) == {lines[0]}, printed
    assert lines[0].startswith("train: error: params.yaml: `train.device` is 'gpu'")


def test_nothing_listens_where_another_machine_could_reach_it(together: Trained) -> None:
    assert together.listened  # gloo's own: the test sees sockets
    assert together.listened <= {"127.0.0.1", "::1"}


def test_the_store_of_one_machine_is_the_users_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (OPTIONS_VARIABLE, "GENDER_CLASSIFIER_STORE", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "GENDER_CLASSIFIER_STORE",
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE",
    ):  # set in between, and forgotten after
        monkeypatch.setenv(name, "")
    with _choose_options() as options:
        folder = Path(options[-1]).parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert Path(os.environ["GENDER_CLASSIFIER_STORE"]).parent == folder
        assert "--standalone" not in options
    assert not folder.exists()
    monkeypatch.setenv(OPTIONS_VARIABLE, "--nnodes 2 --rdzv-endpoint first.example:29500")
    with _choose_options() as options:
        assert options == ["--nnodes", "2", "--rdzv-endpoint", "first.example:29500"]

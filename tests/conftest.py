"""What several test modules need: images, a small data set, a clean environment."""

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # workers share the cores; OpenMP looks once, when PyTorch is imported
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import mlflow
import numpy as np
import pytest
import torch
from checkout import SMALL, Checkout, clone
from filelock import FileLock
from hypothesis import settings
from mlflow import MlflowClient
from PIL import Image
from torchvision.models import AlexNet_Weights, alexnet

from gender_classifier.data.manifest import Record
from gender_classifier.data.names import CLASSES
from gender_classifier.evaluate.export import export_onnx
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.model.unfamiliarity import fit_unfamiliarity
from gender_classifier.verify.inspection import inspect

# A deadline would fail tests on a busy machine.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add an option for the README's images."""
    parser.addoption("--screenshots", metavar="FOLDER", help="sweep with the real params, and keep the UI's images")


# What takes longest, first: two workers then end at about the same time.
_LONGEST = (
    "test_services.py", "test_resume.py", "test_networks.py", "test_sweep.py", "test_experiments.py", "test_distributed.py",
    "test_stages.py", "test_repeatability.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the caller's DVC and MLflow settings out of the tests, and one test's address out of the next."""
    for name in list(os.environ):
        if name.startswith(("DVC_EXP", "DVC_ROOT", "DVC_STAGE", "MLFLOW_", "GENDER_CLASSIFIER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    yield
    mlflow.set_tracking_uri(None)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the tables once: that takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def root(tmp_path: Path, empty_store: Path) -> Path:
    """Return a project's folder with an empty store."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    (tmp_path / "dvc.yaml").touch()
    return tmp_path


@pytest.fixture(scope="session")
def repro(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Return a clone in which `dvc repro` has run once and its results are committed; not to be changed.

    The first worker that wants it makes it for all.
    """
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    repository, inside = shared / "repro", "teams/100% faces?"
    with FileLock(shared / "repro.lock"):
        if not repository.exists():
            checkout = clone(shared / "unfinished", SMALL, inside)
            checkout.run("dvc", "repro")
            checkout.run("git", "add", "-A")
            checkout.run("git", "commit", "-q", "-m", "results")
            checkout.repository.rename(repository)  # and it keeps its runs
            Checkout(repository / inside, repository).run("gender-classifier", "sync")
    return Checkout(repository / inside, repository)


def client(root: Path) -> MlflowClient:
    """Return a client of the store at ``root``."""
    return MlflowClient(tracking_uri=f"sqlite:///{root / 'mlflow.db'}")


def encode(pixels: np.ndarray, format: str = "JPEG", **options: object) -> bytes:
    """Return ``pixels``, uint8 (H, W) or (H, W, C), as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def draw_pixels(seed: int, width: int = 80, height: int = 100) -> np.ndarray:
    """Return uint8 (height, width, 3) of random patches: images that differ as photographs do."""
    patches = np.random.default_rng(seed).integers(0, 256, (20, 16, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))


def picture(seed: int, width: int = 80, height: int = 100) -> bytes:
    """Return a JPEG of :func:`draw_pixels`."""
    return encode(draw_pixels(seed, width, height), quality=90)


def inspect_labelled(member: str, data: bytes, max_pixels: int = 10**6) -> Record:
    """Inspect an image named as in the drawn sample, ``Training/female/1.jpg``."""
    folder, label, _ = member.split("/", 2)
    split = {"Training": "train", "Validation": "test"}[folder]
    return replace(inspect(member, data, max_pixels=max_pixels).record, split=split, label=label)


@pytest.fixture(scope="session")
def served_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export an untrained model of the default architecture, as `evaluate` does a trained one."""
    path = tmp_path_factory.mktemp("served") / "model.onnx"
    torch.manual_seed(0)
    # Untrained, it tells little apart: at this margin it looks twice at about half of the drawn images.
    spec = ModelSpec("linear", CLASSES, 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), tta_margin=0.004)
    network = build_model("linear", 2, 64).eval()
    train, val = (np.stack([draw_pixels(seed, 64, 64) for seed in range(first, first + 64)]) for first in (9000, 9100))
    export_onnx(path, network, spec, {"data_digest": "abc"}, fit_unfamiliarity(network, spec, train, val))
    return path


def stand_in(path: Path) -> dict[str, torch.Tensor]:
    """Write a file with the names and shapes of torchvision's ImageNet weights, filled from a seed."""
    torch.manual_seed(7)
    state = alexnet().state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)
    return state


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where torch hub's cache has torchvision's ImageNet weights, in a cache of the test's own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    torch.hub.set_dir(str(tmp_path / "torch" / "hub"))
    return tmp_path / "torch" / "hub" / "checkpoints" / AlexNet_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]

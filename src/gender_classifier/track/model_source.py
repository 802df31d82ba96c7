"""Where the ONNX file of a model is: a path as it stands, the shipped model, or a version of the registry."""

import difflib
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from gender_classifier.common.paths import PRETRAINED, Layout, find_checkout, locate_pretrained
from gender_classifier.errors import ModelError, needs_extra

REGISTRY = "models:"
"""What the name of a model in MLflow's registry begins with."""


class FoundModel(NamedTuple):
    """A model's file, and its version in the registry where it comes from there."""

    path: Path
    registry_version: str | None


@contextmanager
def find_model(name: str | None, folder: Path) -> Iterator[FoundModel]:
    """Give the ONNX file that ``name`` means, as long as it takes to load it.

    MLflow is imported for a name of the registry only. What is downloaded goes to a temporary folder, which is removed
    at the end of the context, also if Ctrl-C or SIGTERM ends it.

    Args:
        name: a path, ``pretrained``, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; None for the checkout's
            ``models/model.onnx``.
        folder: in the checkout; whose run store has the registry, unless ``MLFLOW_TRACKING_URI`` names another.

    Raises:
        ModelError: this copy of the package ships no model, ``name`` is ``pretrained`` mistyped, or None outside any
            project.
        MissingPackageError: MLflow is not installed, and the name is one of the registry.
        TrackingError: outside any project no store is named; or it does not answer, or has no such version.
        SystemExit: SIGTERM came.
    """
    if name is None:
        root = find_checkout(folder)
        path = Layout(root or folder).onnx_path
        if root is None and not path.exists():
            raise ModelError(
                f"{path}: no such file, nor is this a project (no dvc.yaml in this folder or above it); run in the "
                "project's folder, or give --model pretrained or another path"
            )
        yield FoundModel(path, None)
    elif name == PRETRAINED:
        yield FoundModel(locate_pretrained("model.onnx"), None)
    elif not name.startswith(REGISTRY):
        path = Path(name).expanduser()
        if name == path.name and difflib.get_close_matches(name, [PRETRAINED], cutoff=0.8) and not path.exists():
            raise ModelError(f"{name}: no such file; did you mean `{PRETRAINED}`, the model that this package ships?")
        yield FoundModel(path, None)
    else:
        with _exit_on_sigterm(), tempfile.TemporaryDirectory(prefix="gender-classifier-") as place:
            yield _download(name, folder, Path(place))


def _download(name: str, folder: Path, place: Path) -> FoundModel:
    with needs_extra("pipeline"):
        from gender_classifier.track.registry import download_version, find_version  # noqa: PLC0415
        from gender_classifier.track.store import connect, locate_store_root  # noqa: PLC0415
    client = connect(locate_store_root(folder), create=False)
    version = find_version(client, name)
    return FoundModel(download_version(client, version, place), str(version.version))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM, which by default ends a process on the spot, run what cleans up."""
    if threading.current_thread() is not threading.main_thread():  # no other may set handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, _: FrameType | None) -> None:
    sys.exit(128 + number)

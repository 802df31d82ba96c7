"""Where the ONNX file of a model is: a path as it stands, a version of the registry downloaded first."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

from gender_classifier.common.checkout import find_checkout
from gender_classifier.common.paths import Layout
from gender_classifier.errors import ModelError

REGISTRY = "models:"
"""What the name of a model in MLflow's registry begins with."""


class FoundModel(NamedTuple):
    """A model's file, and its version in the registry where it comes from there."""

    path: Path
    registry_version: str | None


def find_model(name: str | None, folder: Path) -> FoundModel:
    """Return the ONNX file that ``name`` means.

    MLflow is imported for a name of the registry only. What is downloaded goes to a temporary folder, which is removed
    when the process ends.

    Args:
        name: a path, ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``; None for the checkout's
            ``models/model.onnx``.
        folder: in the checkout; whose run store has the registry, unless ``MLFLOW_TRACKING_URI`` names another.

    Raises:
        ModelError: MLflow is not installed.
        TrackingError: outside any project no store is named; or it does not answer, or has no such version.
    """
    if name is None:
        return FoundModel(Layout(find_checkout(folder) or folder).onnx_path, None)
    if not name.startswith(REGISTRY):
        return FoundModel(Path(name).expanduser(), None)
    try:
        from gender_classifier.track.registry import download_version, find_version  # noqa: PLC0415
        from gender_classifier.track.store import connect, locate_store_root  # noqa: PLC0415
    except ImportError as error:
        raise ModelError(
            f"{name}: names of the registry need {error.name}; install the project with its extra `pipeline`, or give "
            "the path of a model.onnx"
        ) from None
    client = connect(locate_store_root(folder), create=False)
    version = find_version(client, name)
    place = Path(tempfile.mkdtemp(prefix="gender-classifier-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return FoundModel(download_version(client, version, place), str(version.version))

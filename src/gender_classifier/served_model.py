"""Which model is in use: a file, or a version in MLflow's registry."""

from __future__ import annotations

from pathlib import Path

from gender_classifier.layout import Layout, find_main_root
from gender_classifier.predictor import Predictor

REGISTRY_SCHEME = "models:/"


def open_predictor(model: str | None, *, threads: int | None = None) -> Predictor:
    """Load the model that a user named.

    Args:
        model: a path; ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``, for which alone MLflow is imported; None for
            ``models/model.onnx`` of the checkout that the working folder lies in.
        threads: of onnxruntime; None for one a core.

    Raises:
        ModelError: no such file, or no model of this project.
        TrackingError: the store does not answer, or has no such version.
    """
    root = find_checkout(Path.cwd())
    if model is None:
        return Predictor(Layout(root).onnx_path, threads=threads)
    if model.startswith(REGISTRY_SCHEME):
        from gender_classifier.registry import fetched_model  # noqa: PLC0415  it imports MLflow
        from gender_classifier.tracking import connect  # noqa: PLC0415

        with fetched_model(connect(find_main_root(root), create=False), model) as path:
            return Predictor(path, threads=threads)
    return Predictor(Path(model).expanduser(), threads=threads)


def find_checkout(folder: Path) -> Path:
    """Return the nearest folder at or above ``folder`` with a pipeline, or ``folder`` itself."""
    return next((one for one in (folder, *folder.parents) if (one / "dvc.yaml").is_file()), folder)

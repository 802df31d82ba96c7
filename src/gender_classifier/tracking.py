"""MLflow, and nothing else: the one module that imports it. Stages write files first and mirror them here."""

from __future__ import annotations

import getpass
import json
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import mlflow
import mlflow.onnx
import numpy as np
import onnx
from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import Schema, TensorSpec

from gender_classifier.errors import TrackingError
from gender_classifier.layout import find_main_root

EXPERIMENT = "gender-classifier"
"""Default experiment of the model runs (``MLFLOW_EXPERIMENT_NAME`` wins); the data runs' adds ``-data``."""

REGISTERED_MODEL = "gender-classifier"

# The UI opens such an experiment on its training runs instead of on its pages for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# What one call of MLflow's REST API takes at most.
_MAX_PARAMS, _MAX_METRICS = 100, 1000


@dataclass(frozen=True)
class TrackedRun:
    """One open MLflow run, through a client of its own: no process-wide state."""

    client: MlflowClient
    run_id: str
    experiment: str

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log ``params``, a key and a text each."""
        entries = [Param(key, str(value)) for key, value in params.items()]
        for start in range(0, len(entries), _MAX_PARAMS):
            self.client.log_batch(self.run_id, params=entries[start : start + _MAX_PARAMS])

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Log finite ``metrics`` in one call; ``step`` is the epoch for curves."""
        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value in metrics.items() if math.isfinite(value)]
        for start in range(0, len(entries), _MAX_METRICS):
            self.client.log_batch(self.run_id, metrics=entries[start : start + _MAX_METRICS])

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload one file, or all that is in a folder, below ``folder``.

        Pictures go to the root: MLflow's page that compares runs previews only the files there.
        """
        if path.is_dir():
            self.client.log_artifacts(self.run_id, str(path), folder)
        else:
            self.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; what was there under the same name is replaced."""
        self.client.log_batch(self.run_id, tags=[RunTag(key, str(value)) for key, value in tags.items()])

    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, object]) -> None:
        """Link the run to the verified data it used, as an MLflow input.

        Args:
            name: of the data set; what the UI shows.
            digest: SHA-256 of the manifest.
            context: ``training`` or ``evaluation``.
            profile: counts to show beside it.
        """
        dataset = Dataset(
            name=name,
            digest=short_digest(digest),
            source_type="code",
            source=json.dumps({"tags": {"manifest_sha256": digest}}),
            profile=json.dumps(dict(profile)),
        )
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])

    def register_model(
        self, path: Path, *, image_size: int, num_classes: int, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> str:
        """Log the ONNX file ``path`` as the run's model with ``metrics``, and register it as a new version.

        Returns:
            The version of ``gender-classifier`` in the model registry.
        """
        images = TensorSpec(np.dtype(np.uint8), (-1, image_size, image_size, 3), "images")
        probs = TensorSpec(np.dtype(np.float32), (-1, num_classes), "probs")
        with _fluent(self), mlflow.start_run(run_id=self.run_id):
            info = mlflow.onnx.log_model(
                onnx.load(str(path)),
                name="model",
                registered_model_name=REGISTERED_MODEL,
                signature=ModelSignature(Schema([images]), Schema([probs])),
                # Named, since inferring them takes 10 s; what scoring needs and no more.
                pip_requirements=[f"mlflow=={mlflow.__version__}", "numpy", f"onnx=={onnx.__version__}", "onnxruntime"],
                tags=dict(tags),
            )
            mlflow.log_metrics(dict(metrics), model_id=info.model_id, run_id=self.run_id)
        version = str(info.registered_model_version)
        for key, value in {**tags, **{name: f"{value:.6g}" for name, value in metrics.items()}}.items():
            self.client.set_model_version_tag(REGISTERED_MODEL, version, key, value)
        return version


@contextmanager
def track(stage: str, root: Path, *, data: bool = False, resume: str | None = None) -> Iterator[TrackedRun]:
    """Open a run for ``stage``, and close it as FINISHED, FAILED or KILLED.

    Args:
        stage: name of the DVC stage; tag ``dvc.stage``.
        root: the folder the stage runs in.
        data: put it under the experiment for data instead of the one for models.
        resume: id of a run to go on with; unknown to the store, a new one is opened and says so.

    Raises:
        TrackingError: the store does not answer.
    """
    with _quiet_mlflow(), _one_line_errors():
        run = _open_run(stage, root, data=data, resume=resume)
    try:
        with _quiet_mlflow(), _one_line_errors():
            yield run
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        run.client.set_terminated(run.run_id, status)
        raise
    with _one_line_errors():
        run.client.set_terminated(run.run_id, "FINISHED")


def find_tracking_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or SQLite at the root of the main checkout."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{find_main_root(root) / 'mlflow.db'}"


def short_digest(digest: str) -> str:
    """Return the part of a SHA-256 that MLflow shows."""
    return digest[:16]


def _open_run(stage: str, root: Path, *, data: bool, resume: str | None) -> TrackedRun:
    main_root = find_main_root(root)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    if data:
        experiment += "-data"
    # Making the client creates the tables; two processes that create one SQLite store at once break it.
    with FileLock(main_root / ".mlflow.lock"):
        client = MlflowClient(tracking_uri=find_tracking_uri(root))
        experiment_id = _find_experiment(client, experiment, main_root)
    tags = _describe_process(stage, root)
    if resume is not None:
        if _is_live(client, resume):
            client.update_run(resume, status="RUNNING")
            return TrackedRun(client, resume, experiment)
        tags["resumed.from"] = resume
        print(f"{stage}: the MLflow store does not know run {resume}; opening a new one")
    name = _name_run(tags)
    run = client.create_run(experiment_id, tags=tags, run_name=f"{stage} {name}" if data else name)
    return TrackedRun(client, run.info.run_id, experiment)


def _find_experiment(client: MlflowClient, name: str, main_root: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        if found.lifecycle_stage != "active":
            raise TrackingError(
                f"MLflow experiment {name!r} is deleted; restore it in the UI, or set MLFLOW_EXPERIMENT_NAME to another"
            )
        return str(found.experiment_id)
    # A server decides itself where artifacts go; a local store would take the folder it happens to be created in.
    is_local = client.tracking_uri.startswith("sqlite:")
    location = (main_root / "mlartifacts" / name).as_uri() if is_local else None
    try:
        return str(client.create_experiment(name, artifact_location=location, tags=_EXPERIMENT_TAGS))
    except MlflowException as error:
        found = client.get_experiment_by_name(name)  # another machine may have been quicker
        if found is None:
            raise error
        return str(found.experiment_id)


def _is_live(client: MlflowClient, run_id: str) -> bool:
    try:
        return bool(client.get_run(run_id).info.lifecycle_stage == "active")
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _describe_process(stage: str, root: Path) -> dict[str, str]:
    """Return the tags that every run carries: DVC's names, and MLflow's own for source, commit and user."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or _head_commit(root)
    tags = {
        "dvc.stage": stage,
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "mlflow.user": getpass.getuser(),
    }
    return {key: value for key, value in tags.items() if value}


def _name_run(tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit", "")
    return tags.get("dvc.exp") or (f"repro-{commit[:7]}" if commit else "repro")


def _head_commit(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except FileNotFoundError:
        return ""


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(f"MLflow: {reason}; check the store (MLFLOW_TRACKING_URI) and run again") from error


@contextmanager
def _fluent(run: TrackedRun) -> Iterator[None]:
    """Lend MLflow's process-wide address to this run's store: ``log_model`` has no client form."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(run.client.tracking_uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def _quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's notes (and its database's migration log) off the terminal; warnings still show."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)

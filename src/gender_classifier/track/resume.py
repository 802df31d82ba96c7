"""Which run a stage goes on with, and what it takes over from it."""

import tempfile
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from gender_classifier.data.file_names import describe_value
from gender_classifier.track.delivery import MAX_METRICS
from gender_classifier.track.store import (
    find_experiments,
)

# Tag: what a run works on, hashed.
WORK_TAG = "work"


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_stillborn(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return the newest run of the same work that ended before its first metric."""
    experiment_id = find_experiments(client).get(experiment)
    if not key or experiment_id is None:
        return None
    found = client.search_runs([experiment_id], f"tags.`{WORK_TAG}` = '{key}' and attributes.status != 'FINISHED'")
    return next((run for run in found if run.info.status != "RUNNING" and not run.data.metrics), None)


def goes_on(run: Run, params: Mapping[str, object], tags: Mapping[str, str]) -> bool:
    """Whether this process may write to ``run``: the same params, and not another experiment's finished row."""
    logged = run.data.params
    if any(describe_value(logged.get(key, value)) != describe_value(value) for key, value in params.items()):
        return False
    was = run.data.tags
    is_complete = run.info.status == "FINISHED" and was.get("dvc.stage") == "evaluate"
    own = tags.get("dvc.exp", "")
    return not is_complete or own in split_names(was.get("dvc.exp", "")) or not own


def copy_record(client: MlflowClient, source: Run, run_id: str) -> None:
    """Give a run that continues another one that one's curves, inputs and artifacts; what is new replaces them."""
    own = ("mlflow.", "dvc.", "process.")
    tags = {key: value for key, value in source.data.tags.items() if not key.startswith(own)}
    note = source.data.tags.get("mlflow.note.content")
    points = [
        point
        for name in source.data.metrics
        if not name.startswith(("test/", "extra/"))
        for point in client.get_metric_history(source.info.run_id, name)
    ]
    for start in range(0, len(points), MAX_METRICS):
        client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if note:
        client.set_tag(run_id, "mlflow.note.content", note)
    if source.inputs is not None:
        client.log_inputs(run_id, source.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(source.info.run_id, "", folder)
        client.log_artifacts(run_id, folder)


def split_names(text: str) -> list[str]:
    return [name for name in text.split(", ") if name]

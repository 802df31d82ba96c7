"""MLflow's tracking store. Stages write files first and mirror them here; an outage costs no training.

What cannot be sent goes to an outbox on disk, and from there to the store when it answers again.
"""

from __future__ import annotations

import getpass
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from gender_classifier.credentials import hide_in_addresses
from gender_classifier.delivery import deliver, deliver_all, is_refusal, send_entry
from gender_classifier.errors import TrackingError
from gender_classifier.file_names import describe_value
from gender_classifier.layout import Layout
from gender_classifier.outbox import Entry, Outbox, find_outboxes
from gender_classifier.processes import identify_process, is_dead, is_stopped
from gender_classifier.store import (
    OPEN_TIMEOUT,
    UPLOAD_TIMEOUT,
    connect,
    find_experiments,
    make_experiment,
    name_experiment,
    name_store,
    one_line_errors,
    patience,
    quiet_mlflow,
    shorten,
)
from gender_classifier.terminal import complain

# What one call of MLflow's REST API takes at most.
_MAX_PARAMS, _MAX_METRICS = 100, 1000

# Seconds that a stage waits for an answer to what it logs.
_SEND_TIMEOUT = 20

# Tag: what a run works on, hashed.
_KEY = "work"


class TrackedRun:
    """One open MLflow run, through a client of its own: no process-wide state."""

    def __init__(self, client: MlflowClient, run_id: str, experiment: str, commit: str, outbox: Outbox) -> None:
        """Send to ``client``; what it does not take, keep in ``outbox``. ``commit`` is the code's."""
        self.client, self.run_id, self.experiment, self.commit = client, run_id, experiment, commit
        self._outbox = outbox
        self._retry_at = 0.0

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log ``params``, a key and a text each."""
        entries = [[key, describe_value(value)] for key, value in params.items()]
        for start in range(0, len(entries), _MAX_PARAMS):
            self._send({"kind": "params", "params": entries[start : start + _MAX_PARAMS]})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None:
        """Log finite ``metrics`` in one call.

        Args:
            metrics: values by name.
            step: the epoch, for curves.
            timestamp: ms since 1970, of the measurement. The same value, step and time once more is no second point.
        """
        when = now_ms() if timestamp is None else timestamp
        entries = [[key, float(value), when, step] for key, value in metrics.items() if math.isfinite(value)]
        for start in range(0, len(entries), _MAX_METRICS):
            self._send({"kind": "metrics", "metrics": entries[start : start + _MAX_METRICS]})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload one file, or all that is in a folder, below ``folder``.

        Pictures go to the root: MLflow's page that compares runs previews only the files there.
        """
        self._send({"kind": "artifact", "folder": folder}, path)

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags; what was there under the same name is replaced."""
        self._send({"kind": "tags", "tags": {key: hide_in_addresses(str(value)) for key, value in tags.items()}})

    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, object]) -> None:
        """Link the run to the verified data it used, as an MLflow input.

        Args:
            name: of the data set; what the UI shows.
            digest: SHA-256 of the manifest.
            context: ``training`` or ``evaluation``.
            profile: counts to show beside it.
        """
        dataset = {"name": name, "digest": digest, "context": context, "profile": dict(profile)}
        self._send({"kind": "dataset", **dataset})

    def close(self, status: str) -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``; send once more what is left."""
        self._retry_at = 0.0
        self._send({"kind": "end", "status": status, "time": now_ms()})
        if not self._outbox.is_empty:
            folder = self._outbox.folder
            print(
                f"MLflow has not received all of run {self.run_id}; the rest is in {folder} and is sent by the next "
                "stage that reaches the store, or by `gender-classifier sync`",
                file=sys.stderr,
            )

    def _send(self, entry: Entry, attachment: Path | None = None) -> None:
        began = time.monotonic()
        if began >= self._retry_at:
            try:
                with patience(UPLOAD_TIMEOUT if attachment else _SEND_TIMEOUT):
                    deliver(self.client, self._outbox)
                    send_entry(self.client, self.run_id, entry, attachment)
                return
            except (MlflowException, SQLAlchemyError, OSError) as error:
                if is_refusal(error):
                    raise
                if self._outbox.is_empty:
                    print(f"MLflow does not answer ({shorten(error)}); going on without it", file=sys.stderr)
                # Trying again takes a tenth of the training's time at most.
                now = time.monotonic()
                self._retry_at = now + max(30.0, 10 * (now - began))
        self._outbox.append(entry, attachment)


@contextmanager
def track(
    stage: str,
    root: Path,
    *,
    params: Mapping[str, object],
    data: bool = False,
    resume: str | None = None,
    key: str = "",
) -> Iterator[TrackedRun]:
    """Open a run for ``stage``, log its ``params``, and close it as FINISHED, FAILED or KILLED.

    On the way in, what the store missed earlier is sent, and runs whose process has died are marked KILLED.

    Args:
        stage: name of the DVC stage; tag ``dvc.stage``.
        root: the folder the stage runs in.
        params: what the run is about; a run is one row with one set of them.
        data: put it under the experiment for data instead of the one for models.
        resume: id of a run to go on with. Where the store does not know it, or it is about other params or was
            evaluated under another experiment, a new one is opened, that one's record is copied, and it says so.
        key: what this work is, hashed. Without ``resume``, a run of the same key goes on that was stopped before it
            had logged anything; tag ``work``.

    Raises:
        TrackingError: the store does not answer, within seconds; or refuses what it is sent.
    """
    with quiet_mlflow(), one_line_errors():
        run = _open_run(stage, root, params, data=data, resume=resume, key=key)
    try:
        with quiet_mlflow(), one_line_errors():
            yield run
    except BaseException as error:
        with quiet_mlflow():
            run.close("FAILED" if isinstance(error, Exception) and not is_stopped() else "KILLED")
        raise
    with quiet_mlflow(), one_line_errors():
        run.close("FINISHED")


def catch_up(client: MlflowClient, root: Path) -> tuple[int, int]:
    """Send what the store has missed, and mark runs KILLED whose process on this host has died.

    What a store refuses is set aside and named, what fails is named and stays: neither keeps back the rest.

    Returns:
        How many runs were completed, and how many were marked.

    Raises:
        TrackingError: the store does not answer.
    """
    with quiet_mlflow(), one_line_errors(), patience(UPLOAD_TIMEOUT):
        completed = deliver_all(client, find_outboxes(Layout(root).outbox_dir, name_store(client.tracking_uri, root)))
        return completed, _mark_dead(client)


def name_experiments(client: MlflowClient, experiments: Iterable[tuple[str, str]]) -> int:
    """Add to runs the names of DVC experiments that they do not bear: DVC restored their results without a stage.

    The run's name and its tag ``dvc.exp`` then hold all of its names, separated by commas.

    Args:
        client: of the store.
        experiments: DVC's name, and the id of the run that trained the model, of each.

    Returns:
        How many names were added.
    """
    with one_line_errors(), patience(OPEN_TIMEOUT):
        ids = list(find_experiments(client).values())
        runs = {run.info.run_id: run for run in _search_all(client, ids)}
        names = {run_id: _split_names(run.data.tags.get("dvc.exp", "")) for run_id, run in runs.items()}
        # An experiment that evaluated a restored model anew has a row of its own.
        taken = {(run.data.tags.get("continues"), name) for run_id, run in runs.items() for name in names[run_id]}
        added = 0
        for name, run_id in experiments:
            if run_id in runs and name not in names[run_id] and (run_id, name) not in taken:
                names[run_id].append(name)
                text = ", ".join(names[run_id])
                client.set_tag(run_id, "dvc.exp", text)
                client.update_run(run_id, name=text)
                added += 1
    return added


def now_ms() -> int:
    """Return the time as MLflow counts it, ms since 1970."""
    return int(time.time() * 1000)


def _open_run(
    stage: str, root: Path, params: Mapping[str, object], *, data: bool, resume: str | None, key: str
) -> TrackedRun:
    client = connect(root)
    try:
        catch_up(client, root)
    except TrackingError as error:  # of other runs: no reason to stop this one
        complain(stage, error, kind="warning")
    experiment = name_experiment(client, data=data)
    tags = _describe_process(stage, root) | ({_KEY: key} if key else {})
    name = f"{stage} {_name_run(tags)}" if data else _name_run(tags)
    with patience(OPEN_TIMEOUT):
        before = _find_run(client, resume) if resume else _find_stillborn(client, experiment, key)
        if before is not None and _goes_on(before, params, tags):
            run_id = before.info.run_id
            client.update_run(run_id, status="RUNNING", name=name)
        else:
            if resume is not None:
                tags["continues"] = resume
                why = "belongs to another experiment" if before is not None else "is not in the MLflow store"
                print(f"{stage}: run {resume} {why}; opening a new one")
            experiment_id = make_experiment(client, experiment, root)
            run_id = client.create_run(experiment_id, run_name=name, tags=tags).info.run_id
    outbox = Outbox(Layout(root).outbox_dir / run_id, name_store(client.tracking_uri, root))
    run = TrackedRun(client, run_id, experiment, tags.get("mlflow.source.git.commit", ""), outbox)
    if before is not None and before.info.run_id != run_id:
        _copy_record(client, before, run_id)
    run.set_tags(tags)
    # Of an earlier version, a run may have a path where now its last part is logged: the store takes no other value.
    logged = before.data.params if before is not None and before.info.run_id == run_id else {}
    run.log_params({key: value for key, value in params.items() if key not in logged})
    return run


def _find_run(client: MlflowClient, run_id: str) -> Run | None:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def _find_stillborn(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return the newest run of the same work that ended before its first metric."""
    experiment_id = find_experiments(client).get(experiment)
    if not key or experiment_id is None:
        return None
    found = client.search_runs([experiment_id], f"tags.`{_KEY}` = '{key}' and attributes.status != 'FINISHED'")
    return next((run for run in found if run.info.status != "RUNNING" and not run.data.metrics), None)


def _goes_on(run: Run, params: Mapping[str, object], tags: Mapping[str, str]) -> bool:
    """Whether this process may write to ``run``: the same params, and not another experiment's finished row."""
    logged = run.data.params
    if any(describe_value(logged.get(key, value)) != describe_value(value) for key, value in params.items()):
        return False
    was = run.data.tags
    is_complete = run.info.status == "FINISHED" and was.get("dvc.stage") == "evaluate"
    own = tags.get("dvc.exp", "")
    return not is_complete or own in _split_names(was.get("dvc.exp", "")) or not own


def _copy_record(client: MlflowClient, source: Run, run_id: str) -> None:
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
    for start in range(0, len(points), _MAX_METRICS):
        client.log_batch(run_id, metrics=points[start : start + _MAX_METRICS])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if note:
        client.set_tag(run_id, "mlflow.note.content", note)
    if source.inputs is not None:
        client.log_inputs(run_id, source.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(source.info.run_id, "", folder)
        client.log_artifacts(run_id, folder)


def _search_all(client: MlflowClient, ids: list[str]) -> Iterator[Run]:
    token = None
    while ids:
        page = client.search_runs(ids, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _split_names(text: str) -> list[str]:
    return [name for name in text.split(", ") if name]


def _mark_dead(client: MlflowClient) -> int:
    ids = list(find_experiments(client).values())
    running = client.search_runs(ids, "attributes.status = 'RUNNING'") if ids else []
    dead = [run for run in running if is_dead(run.data.tags)]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)


def _describe_process(stage: str, root: Path) -> dict[str, str]:
    """Return the tags that every run carries: DVC's names, the process, and MLflow's own for source and commit."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or _head_commit(root)
    tags = {
        "dvc.stage": stage,
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "mlflow.user": _name_user(),
        **identify_process(),
    }
    return {key: value for key, value in tags.items() if value}


def _name_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())


def _name_run(tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit", "")
    return tags.get("dvc.exp") or (f"repro-{commit[:7]}" if commit else "repro")


def _head_commit(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:  # a container need not have Git
        return ""

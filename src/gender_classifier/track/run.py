"""MLflow runs of stages. Stages write files first and mirror them here; an outage costs no training.

What cannot be sent goes to an outbox on disk, and from there to the store when it answers again.
"""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from gender_classifier.common.credentials import hide_in_addresses
from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import is_stopped
from gender_classifier.data.file_names import describe_value
from gender_classifier.errors import TrackingError
from gender_classifier.track.delivery import MAX_METRICS, MAX_PARAMS, deliver, is_refusal, send_entry
from gender_classifier.track.description import describe_process, name_run
from gender_classifier.track.outbox import Entry, Outbox
from gender_classifier.track.recovery import catch_up
from gender_classifier.track.resume import WORK_TAG, copy_record, find_run, find_stillborn, goes_on
from gender_classifier.track.store import (
    OPEN_TIMEOUT,
    UPLOAD_TIMEOUT,
    connect,
    make_experiment,
    name_experiment,
    name_store,
    one_line_errors,
    patience,
    quiet_mlflow,
    shorten,
)

_logger = logging.getLogger(__name__)


# Seconds that a stage waits for an answer to what it logs.
_SEND_TIMEOUT = 20


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
        for start in range(0, len(entries), MAX_PARAMS):
            self._send({"kind": "params", "params": entries[start : start + MAX_PARAMS]})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None:
        """Log finite ``metrics`` in one call.

        Args:
            metrics: values by name.
            step: the epoch, for curves.
            timestamp: ms since 1970, of the measurement. The same value, step and time once more is no second point.
        """
        when = now_ms() if timestamp is None else timestamp
        entries = [[key, float(value), when, step] for key, value in metrics.items() if math.isfinite(value)]
        for start in range(0, len(entries), MAX_METRICS):
            self._send({"kind": "metrics", "metrics": entries[start : start + MAX_METRICS]})

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload one file, or all that is in a folder, below ``folder``.

        Images go to the root: MLflow's page that compares runs previews only the files there.
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
            _logger.warning(
                "MLflow has not received all of run %s; the rest is in %s and is sent by the next stage that reaches "
                "the store, or by `gender-classifier sync`", self.run_id, folder,
            )  # fmt: skip

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
                    _logger.warning("MLflow does not answer (%s); going on without it", shorten(error))
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
        _logger.warning("%s", error)
    experiment = name_experiment(client, data=data)
    tags = describe_process(stage, root) | ({WORK_TAG: key} if key else {})
    name = f"{stage} {name_run(tags)}" if data else name_run(tags)
    with patience(OPEN_TIMEOUT):
        before = find_run(client, resume) if resume else find_stillborn(client, experiment, key)
        if before is not None and goes_on(before, params, tags):
            run_id = before.info.run_id
            client.update_run(run_id, status="RUNNING", name=name)
        else:
            if resume is not None:
                tags["continues"] = resume
                why = "belongs to another experiment" if before is not None else "is not in the MLflow store"
                _logger.warning("run %s %s; opening a new one", resume, why)
            experiment_id = make_experiment(client, experiment, root)
            hidden = {key: hide_in_addresses(value) for key, value in tags.items()}
            run_id = client.create_run(experiment_id, run_name=name, tags=hidden).info.run_id
    outbox = Outbox(Layout(root).outbox_dir / run_id, name_store(client.tracking_uri, root))
    run = TrackedRun(client, run_id, experiment, tags.get("mlflow.source.git.commit", ""), outbox)
    if before is not None and before.info.run_id != run_id:
        copy_record(client, before, run_id)
    run.set_tags(tags)
    # Of an earlier version, a run may have a path where now its last part is logged: the store takes no other value.
    logged = before.data.params if before is not None and before.info.run_id == run_id else {}
    run.log_params({key: value for key, value in params.items() if key not in logged})
    return run

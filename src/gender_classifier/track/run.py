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
from mlflow.entities import RunInfo
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from gender_classifier.common.credentials import hide_in_addresses, strip_credentials
from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import is_stopped
from gender_classifier.data.file_names import describe_value
from gender_classifier.errors import TrackingError
from gender_classifier.track.delivery import MAX_METRICS, MAX_PARAMS, catch_up, deliver, is_refusal, send_entry
from gender_classifier.track.identity import (
    ERROR_TAG,
    copy_record,
    describe_error,
    describe_process,
    describe_source,
    find_run,
    find_stillborn,
    goes_on,
    name_run,
    take_over,
)
from gender_classifier.track.outbox import Entry, Outbox
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
from gender_classifier.track.system_metrics import watch_system

_logger = logging.getLogger(__name__)


# Seconds that a stage waits for an answer to what it logs.
_SEND_TIMEOUT = 20


class TrackedRun:
    """One open MLflow run, through a client of its own: no process-wide state."""

    def __init__(self, client: MlflowClient, info: RunInfo, experiment: str, commit: str, outbox: Outbox) -> None:
        """Send to ``client``; what it does not take, keep in ``outbox``. ``commit`` is the code's."""
        self.client, self.experiment, self.commit = client, experiment, commit
        self.run_id, self.name, self.opened = str(info.run_id), str(info.run_name), info.start_time / 1000
        self._experiment_id = info.experiment_id
        self._outbox = outbox
        self._retry_at = 0.0

    @property
    def place(self) -> str:
        """Where a person finds the run: its address on a server, or its name and the command that shows it."""
        if not self.client.tracking_uri.startswith(("http:", "https:")):
            return f"{self.name} (`make ui`)"
        server = strip_credentials(self.client.tracking_uri).rstrip("/")
        return f"{server}/#/experiments/{self._experiment_id}/runs/{self.run_id}"

    def log_params(self, params: Mapping[str, object]) -> None:
        """Log ``params``, a key and a text each."""
        entries = [[key, describe_value(value)] for key, value in params.items()]
        for start in range(0, len(entries), MAX_PARAMS):
            self._send({"kind": "params", "params": entries[start : start + MAX_PARAMS]})

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None:
        """Log finite ``metrics`` in one call, with six significant digits.

        Args:
            metrics: values by name; docs/tracking.md has the scheme of names.
            step: the epoch, for curves.
            timestamp: ms since 1970, of the measurement. The same value, step and time once more is no second point.
        """
        when = now_ms() if timestamp is None else timestamp
        entries = [[key, round_metric(value), when, step] for key, value in metrics.items() if math.isfinite(value)]
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

    def close(self, status: str, error: str = "") -> None:
        """End the run as ``FINISHED``, ``FAILED`` or ``KILLED``, with its ``error``; send once more what is left."""
        self._retry_at = 0.0
        if error:
            self.set_tags({ERROR_TAG: error})
        self._send({"kind": "end", "status": status, "time": now_ms()})
        if not self._outbox.is_empty:
            folder = self._outbox.folder
            _logger.warning(
                "MLflow has not received all of run %s; the rest is in %s and is sent by the next stage that reaches "
                "the store, or by `gender-classifier sync`", self.run_id, folder,
            )  # fmt: skip

    def _send(self, entry: Entry, attachment: Path | None = None) -> None:
        # Held to the end: system metrics come from a thread of their own.
        with patience(self.client.tracking_uri, UPLOAD_TIMEOUT if attachment else _SEND_TIMEOUT):
            began = time.monotonic()
            if began >= self._retry_at:
                try:
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
    tags: Mapping[str, object] | None = None,
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
        tags: what people look for; MLflow shows them before those of the process.
        data: put it under the experiment for data instead of the one for models.
        resume: id of a run to go on with. Where the store does not know it, or it is about other params or was
            evaluated under another experiment, a new one is opened, that one's record is copied, and it says so.
        key: what this work is, hashed. Without ``resume``, a run of the same key goes on that was stopped before it
            had logged anything; tag ``work``.

    Raises:
        TrackingError: the store does not answer, within seconds; or refuses what it is sent.
    """
    with quiet_mlflow(), one_line_errors():
        run = _open_run(stage, root, params, tags or {}, data=data, resume=resume, key=key)
    try:
        with (
            quiet_mlflow(),
            one_line_errors(),
            watch_system(run.run_id, run.client.tracking_uri, run.log_metrics, run.opened),
        ):
            yield run
    except BaseException as error:
        with quiet_mlflow():
            if isinstance(error, Exception) and not is_stopped():
                run.close("FAILED", describe_error(error, root))
            else:
                run.close("KILLED")
        raise
    with quiet_mlflow(), one_line_errors():
        run.close("FINISHED")


def now_ms() -> int:
    """Return the time as MLflow counts it, ms since 1970."""
    return int(time.time() * 1000)


def round_metric(value: float) -> float:
    """Return ``value`` with six significant digits."""
    return float(f"{value:.6g}")


def _open_run(
    stage: str,
    root: Path,
    params: Mapping[str, object],
    shown: Mapping[str, object],
    *,
    data: bool,
    resume: str | None,
    key: str,
) -> TrackedRun:
    client = connect(root)
    try:
        catch_up(client, root)
    except TrackingError as error:  # of other runs: no reason to stop this one
        _logger.warning("%s", error)
    experiment = name_experiment(client, data=data)
    tags = describe_source(stage, root)
    with patience(client.tracking_uri, OPEN_TIMEOUT):
        before = find_run(client, resume) if resume else find_stillborn(client, experiment, key)
        continued = before if before is not None and goes_on(before, params, tags) else None
        if continued is not None:
            tags = take_over(client, continued, tags, root)
        elif resume is not None:
            tags["continues"] = resume
            why = "belongs to another experiment" if before is not None else "is not in the MLflow store"
            _logger.warning("run %s %s; opening a new one", resume, why)
        name = f"{stage} {name_run(tags)}" if data else name_run(tags)
        # MLflow shows tags in the order in which they were set first.
        tags |= {key: str(value) for key, value in shown.items()} | describe_process(key)
        if continued is not None:
            client.update_run(continued.info.run_id, status="RUNNING", name=name)
            info = client.get_run(continued.info.run_id).info
        else:
            hidden = {key: hide_in_addresses(value) for key, value in tags.items()}
            experiment_id = make_experiment(client, experiment, root)
            info = client.create_run(experiment_id, run_name=name, tags=hidden).info
    outbox = Outbox(Layout(root).outbox_dir / info.run_id, name_store(client.tracking_uri, root))
    run = TrackedRun(client, info, experiment, tags.get("mlflow.source.git.commit", ""), outbox)
    if before is not None and continued is None:
        with patience(client.tracking_uri, UPLOAD_TIMEOUT):
            copy_record(client, before, run.run_id)
    run.set_tags(tags)
    # A run of an earlier version may have a path where now its last part is logged: the store takes no other value.
    logged = continued.data.params if continued is not None else {}
    run.log_params({key: value for key, value in params.items() if key not in logged})
    return run

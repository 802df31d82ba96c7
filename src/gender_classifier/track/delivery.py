"""Entries on their way to the MLflow store, and what a later command makes up for.

An outage holds entries back, and a killed process leaves its run open.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from gender_classifier.common.files import short_digest
from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import is_dead
from gender_classifier.track.outbox import Entry, Outbox, find_outboxes
from gender_classifier.track.store import (
    UPLOAD_TIMEOUT,
    find_experiments,
    name_store,
    one_line_errors,
    patience,
    quiet_mlflow,
    shorten,
)

_logger = logging.getLogger(__name__)

MAX_PARAMS, MAX_METRICS = 100, 1000
"""Params and metrics in one call of MLflow's REST API, at most."""

# The store has answered, and the request is wrong: sending it again would not help.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


def catch_up(client: MlflowClient, root: Path) -> tuple[int, int]:
    """Send what the store has missed, and mark runs KILLED whose process on this host has died.

    Returns:
        How many runs were completed, and how many were marked.

    Raises:
        TrackingError: the store does not answer, or refuses an entry.
    """
    with quiet_mlflow(), one_line_errors(), patience(client.tracking_uri, UPLOAD_TIMEOUT):
        completed = _deliver_all(client, find_outboxes(Layout(root).outbox_dir, name_store(client.tracking_uri, root)))
        return completed, _mark_dead(client)


def _deliver_all(client: MlflowClient, boxes: Iterable[Outbox]) -> int:
    """Send what is in ``boxes``; return how many were sent.

    A box that the store refuses is set aside, one that fails stays, and each is named in one line: neither keeps back
    the others. Once failures have taken ``UPLOAD_TIMEOUT`` seconds, the rest waits for the next time.
    """
    completed, lost = 0, 0.0
    for box in boxes:
        began = time.monotonic()
        try:
            completed += deliver(client, box)
        except Exception as error:  # of any library for artifacts
            _warn(
                f"what run {box.run_id} holds back for MLflow cannot be sent ({shorten(error)}); it stays in "
                f"{box.folder} and is tried again by the next stage, or by `gender-classifier sync`"
            )
            lost += time.monotonic() - began
            if lost > UPLOAD_TIMEOUT:
                break
    return completed


def deliver(client: MlflowClient, outbox: Outbox) -> bool:
    """Send what is in ``outbox``; return False if the store refuses it, and it was set aside."""
    if outbox.is_empty:
        return False
    with outbox.lock():
        try:
            for entry, attachment in outbox.entries():
                send_entry(client, outbox.run_id, entry, attachment)
        except (MlflowException, KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, MlflowException) and not is_refusal(error):
                raise
            folder = outbox.set_aside()
            _warn(
                f"MLflow refuses what run {outbox.run_id} holds back ({shorten(error)}); it is kept in {folder}: "
                f"remove it, or rename the folder to {outbox.place.name} and run `gender-classifier sync` to send it "
                "again"
            )
            return False
        torn = outbox.count_torn()
        outbox.clear()
    if torn:
        _warn(
            f"MLflow run {outbox.run_id} lacks {torn} of the entries held back for it: a power cut or a full disk tore "
            "them"
        )
    return True


def is_refusal(error: Exception) -> bool:
    """Return True if the store has answered that the request is wrong."""
    return isinstance(error, MlflowException) and error.error_code in _REFUSALS


def send_entry(client: MlflowClient, run_id: str, entry: Entry, attachment: Path | None) -> None:
    """Send one entry. Sent twice, it leaves what once leaves."""
    kind = entry["kind"]
    if kind == "params":
        client.log_batch(run_id, params=[Param(*one) for one in entry["params"]])
    elif kind == "metrics":
        client.log_batch(run_id, metrics=[Metric(*one) for one in entry["metrics"]])
    elif kind == "tags":
        client.log_batch(run_id, tags=[RunTag(*one) for one in entry["tags"].items()])
    elif kind == "dataset":
        client.log_inputs(run_id, [_build_input(entry)])
    elif kind == "end":
        client.set_terminated(run_id, entry["status"], entry["time"])
    elif attachment is not None and attachment.is_dir():
        client.log_artifacts(run_id, str(attachment), entry["folder"])
    else:
        client.log_artifact(run_id, str(attachment), entry["folder"])


def _build_input(entry: Mapping[str, Any]) -> DatasetInput:
    dataset = Dataset(
        name=entry["name"],
        digest=short_digest(entry["digest"]),
        source_type="code",
        source=json.dumps({"tags": {"manifest_sha256": entry["digest"]}}),
        profile=json.dumps(entry["profile"]),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", entry["context"])])


def _warn(message: str) -> None:
    _logger.warning("%s", message)


def _mark_dead(client: MlflowClient) -> int:
    ids = list(find_experiments(client).values())
    running = client.search_runs(ids, "attributes.status = 'RUNNING'") if ids else []
    dead = [run for run in running if is_dead(run.data.tags)]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)

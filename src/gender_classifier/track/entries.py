"""One entry of a run as MLflow takes it, and boxes of entries that were not sent in time."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from gender_classifier.common.files import short_digest
from gender_classifier.track.outbox import Entry, Outbox
from gender_classifier.track.store import (
    shorten,
)

_logger = logging.getLogger(__name__)

# What one call of MLflow's REST API takes at most.
MAX_PARAMS, MAX_METRICS = 100, 1000


# The store has answered, and the request is wrong: sending it again would not help.
_REFUSALS = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


def empty_outbox(client: MlflowClient, outbox: Outbox) -> bool:
    """Send what is in the box, and clear it; return whether the store took all.

    An entry that the store refuses holds up no other: the box is then set aside, and named.
    """
    if outbox.is_empty:
        return True
    refusal: MlflowException | None = None
    with outbox.lock():
        for entry, attachment in outbox.entries():
            try:
                apply_entry(client, outbox.run_id, entry, attachment)
            except MlflowException as error:
                if not is_refusal(error):
                    raise
                refusal = refusal or error
        if refusal is None:
            outbox.clear()
            return True
        place = outbox.set_aside()
    _logger.warning(
        "MLflow refuses an entry of run %s (%s); the unsent entries are kept in %s: delete that folder, or restore the "
        "run and rename the folder back", outbox.run_id, shorten(refusal), place,
    )  # fmt: skip
    return False


def apply_entry(client: MlflowClient, run_id: str, entry: Entry, attachment: Path | None) -> None:
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


def is_refusal(error: Exception) -> bool:
    return isinstance(error, MlflowException) and error.error_code in _REFUSALS

"""An evaluated model on its way into MLflow's registry: one version for equal models, however often they are evaluated.

No pickle on either side: the model is an ONNX file.
"""

import hashlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
import mlflow.onnx
import numpy as np
import onnx
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema, TensorSpec
from mlflow.utils.git_utils import get_git_repo_url

from gender_classifier.common.credentials import strip_credentials
from gender_classifier.common.files import short_digest
from gender_classifier.common.locks import hold_lock
from gender_classifier.common.paths import Layout, find_main_root
from gender_classifier.data.dataset import tag_corrections
from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.evaluate.inputs import Inputs
from gender_classifier.evaluate.measure import Evaluation
from gender_classifier.evaluate.params import PromotionParams
from gender_classifier.metrics.scores import as_keys, select_headlines
from gender_classifier.model.metadata import UNFAMILIARITY
from gender_classifier.model.model_file import describe_network
from gender_classifier.track.registry import CHALLENGER, REGISTERED_MODEL, is_compared, name_gap_digest, settle_champion
from gender_classifier.track.run import TrackedRun, round_metric
from gender_classifier.track.store import OPEN_TIMEOUT, fluent, patience

_logger = logging.getLogger(__name__)

_ABOUT = (
    "Classifies face crops: uint8 images (N, S, S, 3) in, probabilities (N, C) and `unfamiliarity` (N,) out; the "
    "signature has S and C. Alias `champion`: the one to use. Alias `challenger`: the one evaluated last. The tag "
    "`promotion` of a version says why it is champion or not."
)

# Tag of a version: SHA-256 of the network and its weights, less what the file says of itself.
_DIGEST_TAG = "model.digest"


def register_run(
    run: TrackedRun,
    layout: Layout,
    inputs: Inputs,
    evaluation: Evaluation,
    scored: Mapping[str, ScoredSet],
    rule: PromotionParams,
) -> str:
    """Register the exported model of an evaluated run, and let ``rule`` decide whether it becomes champion.

    The card gets training time and hardware here: the file in ``models/`` is equal for equal runs.

    Returns:
        The version and the decision, in a line.
    """
    digests = inputs.info.split_sha256
    kept = {f"val/{key}": inputs.best[key] for key in ("kept_accuracy", "kept_loss")}
    headlines = select_headlines(evaluation.report.metrics)
    # Two jobs of a queue may finish at once: each registers and settles before the other one begins.
    lock_path = find_main_root(layout.root) / ".mlflow-registry.lock"
    with hold_lock(lock_path, on_wait=_tell_of_waiting), tempfile.TemporaryDirectory() as folder:
        card = Path(folder) / layout.card_path.name
        with patience(run.client.tracking_uri, OPEN_TIMEOUT):
            training = _describe_training(run.client.get_run(run.run_id).data.tags)
        card.write_text(layout.card_path.read_text(encoding="utf-8") + training, encoding="utf-8")
        run.log_artifact(card)
        version = register_model(
            run.client,
            run.run_id,
            layout.onnx_path,
            name=f"{inputs.spec.architecture}-{run.name}",
            image_size=inputs.spec.image_size,
            num_classes=len(inputs.spec.classes),
            metrics=kept | {f"test/{key}": value for key, value in as_keys(headlines).items()} | _list_gaps(scored),
            tags={
                "model.network": describe_network(inputs.spec),
                "data.digest": short_digest(inputs.info.manifest_sha256),
                **{f"{name}.digest": short_digest(digests[name]) for name in ("val", "test")},
                **{key: str(count) for key, count in tag_corrections(inputs.info.corrections).items()},
                **{name_gap_digest(name): _hash_scored(found) for name, found in scored.items()},
                "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
                "git.commit": run.commit,
            },
            card=card,
        )
        with patience(run.client.tracking_uri, OPEN_TIMEOUT):
            decision = settle_champion(run.client, version, rule)
    return f"version {version} of {REGISTERED_MODEL}, {decision.reason}"


def _tell_of_waiting() -> None:
    _logger.info("the registry: another run of this checkout is being registered; waiting for it")


def register_model(
    client: MlflowClient,
    run_id: str,
    path: Path,
    *,
    name: str,
    image_size: int,
    num_classes: int,
    metrics: Mapping[str, float],
    tags: Mapping[str, str],
    card: Path,
) -> str:
    """Register the ONNX file ``path`` as the newest version, or renew the version that has the same model.

    Args:
        client: of the store that has the run.
        run_id: of the run that trained and evaluated it.
        path: takes uint8 (N, S, S, 3), gives float32 (N, C), and perhaps float32 (N,).
        name: of the logged model, where there is none yet.
        image_size: S, px.
        num_classes: C.
        metrics: go to the logged model; those that promotion compares, as tags to the version too.
        tags: more tags; empty ones are left out.
        card: Markdown; the version's description, and a file beside the model.

    Returns:
        The version.
    """
    model = onnx.load(str(path))
    rounded = {key: round_metric(value) for key, value in metrics.items()}
    shown = {key: value for key, value in tags.items() if value} | {_DIGEST_TAG: _hash_model(model)}
    with fluent(client), mlflow.start_run(run_id=run_id, log_system_metrics=False):
        same = _find_same_model(client, shown[_DIGEST_TAG])
        if same is None:
            images = TensorSpec(np.dtype(np.uint8), (-1, image_size, image_size, 3), "images")
            outputs: list[ColSpec | TensorSpec] = [TensorSpec(np.dtype(np.float32), (-1, num_classes), "probs")]
            if any(output.name == UNFAMILIARITY for output in model.graph.output):
                outputs.append(TensorSpec(np.dtype(np.float32), (-1,), UNFAMILIARITY))
            info = mlflow.onnx.log_model(
                model,
                name=re.sub(r"[^\w-]+", "-", name),
                registered_model_name=REGISTERED_MODEL,
                signature=ModelSignature(Schema([images]), Schema(outputs)),
                # Named, since inferring them takes 10 s; what scoring needs and no more.
                pip_requirements=[f"mlflow=={mlflow.__version__}", "numpy", f"onnx=={onnx.__version__}", "onnxruntime"],
                tags=shown | _describe_source(),
            )
            model_id, version = info.model_id, str(info.registered_model_version)
        else:
            model_id, version = _get_model_id(same), str(same.version)
            client.log_model_artifact(model_id, str(path))  # its metadata have the new figures
            linked = client.get_run(run_id).outputs
            # MLflow refuses a second link.
            if model_id not in {output.model_id for output in (linked.model_outputs if linked else [])}:
                client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
        mlflow.log_metrics(rounded, model_id=model_id, run_id=run_id)
        client.log_model_artifact(model_id, str(card))
        for key, value in (shown | {key: f"{value:g}" for key, value in rounded.items() if is_compared(key)}).items():
            client.set_model_version_tag(REGISTERED_MODEL, version, key, value)
        if client.get_registered_model(REGISTERED_MODEL).description != _ABOUT:
            client.update_registered_model(REGISTERED_MODEL, _ABOUT)
        client.update_model_version(REGISTERED_MODEL, version, card.read_text(encoding="utf-8"))
        client.set_registered_model_alias(REGISTERED_MODEL, CHALLENGER, version)
    return version


def _list_gaps(scored: Mapping[str, ScoredSet]) -> dict[str, float]:
    """Return the gap between groups of each extra set that has groups, by MLflow's names."""
    reports = {name: found.report.metrics for name, found in scored.items()}
    return {f"extra/{name}/group_gap": found["group_gap"] for name, found in reports.items() if "group_gap" in found}


def _hash_scored(found: ScoredSet) -> str:
    """Return a digest of the images of a set that were scored: those also trained on are left out."""
    return short_digest(hashlib.sha256(found.reading.digest.encode() + found.rows.tobytes()).hexdigest())


def _hash_model(model: onnx.ModelProto) -> str:
    computing = onnx.ModelProto()
    computing.CopyFrom(model)
    del computing.metadata_props[:]
    return hashlib.sha256(computing.SerializeToString(deterministic=True)).hexdigest()


def _find_same_model(client: MlflowClient, digest: str) -> ModelVersion | None:
    """Return the newest version of that digest whose files are still there, or None."""
    query = f"name = '{REGISTERED_MODEL}' and tags.`{_DIGEST_TAG}` = '{digest}'"
    for version in sorted(client.search_model_versions(query), key=lambda found: -int(found.version)):
        try:
            client.get_logged_model(_get_model_id(version))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        else:
            return version
    return None


def _get_model_id(version: ModelVersion) -> str:
    return str(version.source).removeprefix("models:/")


def _describe_training(tags: Mapping[str, str]) -> str:
    """Return the card's section on time and hardware; nothing for a run of an earlier version."""
    if "train.time" not in tags:
        return ""
    device, hardware, threads, precision = (
        tags.get(f"torch.{key}", "?") for key in ("device", "hardware", "threads", "precision")
    )
    epochs = f"{tags['train.time']} for all epochs on {device} ({hardware}), {threads} threads, {precision}."
    return f"\n## Training time and hardware\n\n{epochs}\n"


def _describe_source() -> dict[str, str]:
    """Return the tags by which MLflow names the code: by itself it adds paths of this machine, and Git's password."""
    path = Path(sys.argv[0]).absolute()
    tags = {"mlflow.source.name": f"{path.parent.name}/{path.name}"}
    repository = get_git_repo_url(str(path))
    return tags | ({"mlflow.source.git.repoURL": strip_credentials(repository)} if repository else {})

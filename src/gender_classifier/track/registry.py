"""MLflow's model registry: a version for each model that was evaluated, whatever it was evaluated on since.

``challenger`` names the one evaluated last, ``champion`` the chosen one.

No pickle on either side: the model is an ONNX file.
"""

import json
import re
import typing
from collections.abc import Sequence
from pathlib import Path

import mlflow
import mlflow.artifacts
import mlflow.onnx
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from gender_classifier.common.credentials import hide_secrets
from gender_classifier.errors import TrackingError
from gender_classifier.evaluate.params import RENAMED_METRICS, PromotionParams
from gender_classifier.track.promotion import BY_HAND, Contender, Decision, Gap, decide
from gender_classifier.track.store import fluent, one_line_errors

REGISTERED_MODEL = "gender-classifier"
CHAMPION, CHALLENGER = "champion", "challenger"

# What the promotion rule may compare; all other figures are the logged model's.
COMPARED = typing.get_args(typing.get_type_hints(PromotionParams)["metric"])
_GAP = re.compile("extra/(.+)/group_gap")

_CORRECTIONS = "data.corrections."  # tags of a version: number of corrected images of each split

_ROLLED_BACK = "rolled back: "

_VERDICT = "promotion.rule"  # tag of a version: what the rule said last, whatever people decided since

# Tag of the registered model: the versions that were champion, oldest first, as JSON.
_HISTORY = "champion.history"


def is_compared(metric: str) -> bool:
    """Return True for a metric that the promotion rule may compare, so that it is a tag of the version too."""
    return metric in COMPARED or _GAP.fullmatch(metric) is not None


def name_gap_digest(name: str) -> str:
    """Return the tag with the digest of the images of an extra set."""
    return f"extra.{name}.digest"


def settle_champion(client: MlflowClient, version: str, rule: PromotionParams) -> Decision:
    """Move ``champion`` to ``version`` if the rule says so; write the reason on the version either way.

    One that is champion, or was rolled back by hand, stays what it is, and so does its reason.
    """
    current = _find_last_champion(client)
    challenger = client.get_model_version(REGISTERED_MODEL, version)
    before = challenger.tags.get("promotion", "")
    if before.startswith(_ROLLED_BACK):
        return Decision(False, f"not promoted: {before}")
    if current is not None and str(current.version) == version:
        return Decision(False, f"champion already, {before}")
    decision = decide(_read_contender(challenger), _read_contender(current) if current else None, rule)
    for tag in ("promotion", _VERDICT):
        client.set_model_version_tag(REGISTERED_MODEL, version, tag, decision.reason)
    if decision.promote:
        _crown(client, version)
    return decision


def promote(client: MlflowClient, version: str, reason: str) -> tuple[str | None, str]:
    """Make ``version`` champion by hand; one that is champion already keeps its reason.

    Returns:
        The version that was champion before, and what the rule said against ``version``: empty where it did not.

    Raises:
        TrackingError: no such version.
    """
    with one_line_errors():
        existing = {str(found.version): found for found in _search_versions(client)}
        if version not in existing:
            some = ", ".join(map(str, sorted(map(int, existing), reverse=True)[:10])) or "none"
            raise TrackingError(f"version {version} of {REGISTERED_MODEL}: no such version; there are: {some}")
        current = find_champion(client)
        before = str(current.version) if current else None
        if before != version:
            client.set_model_version_tag(REGISTERED_MODEL, version, "promotion", f"promoted by hand: {reason}")
        _crown(client, version)
    said = existing[version].tags.get(_VERDICT, "")
    return before, said.partition(BY_HAND)[0] if said.startswith("not promoted: ") else ""


def rollback(client: MlflowClient, reason: str) -> tuple[str, str]:
    """Give ``champion`` back to the version that had it before; return the version that loses and the one that gains.

    Where the champion was deleted, the last one that still exists gets the alias.

    Raises:
        TrackingError: there is no champion, or no earlier one that still exists.
    """
    with one_line_errors():
        history = _read_history(client)
        if not history:
            raise TrackingError(f"{REGISTERED_MODEL} has no champion yet; run `dvc repro`, or promote a version")
        current = find_champion(client)
        lost = history[-1] if current is None else str(current.version)
        earlier = [version for version in _keep_existing(client, history) if version != lost]
        if not earlier:
            is_first = not [version for version in history if version != lost]
            why = f"version {lost} is the first champion" if is_first else f"no champion before version {lost} is left"
            raise TrackingError(f"{why} of {REGISTERED_MODEL}; there is nothing to go back to")
        if current is not None:
            client.set_model_version_tag(REGISTERED_MODEL, lost, "promotion", f"{_ROLLED_BACK}{reason}")
        client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, earlier[-1])
        client.set_registered_model_tag(REGISTERED_MODEL, _HISTORY, json.dumps(earlier))
    return lost, earlier[-1]


def find_version(client: MlflowClient, reference: str) -> ModelVersion:
    """Return the version that ``reference`` names: ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Raises:
        TrackingError: it is written otherwise, or there is no such version.
    """
    name, version, alias = _parse_reference(reference)
    with one_line_errors():
        try:
            if alias:
                return client.get_model_version_by_alias(name, alias)
            return client.get_model_version(name, version)
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                registry = hide_secrets(client.tracking_uri)
                if (name, alias) == (REGISTERED_MODEL, CHAMPION) and _search_versions(client):
                    raise TrackingError(
                        f"{reference}: no version is champion yet in the registry {registry}; name "
                        f"models:/{name}@{CHALLENGER}, the one evaluated last, or choose one with "
                        "`gender-classifier promote N`"
                    ) from None
                raise TrackingError(
                    f"{reference}: no such version in the registry {registry}; look at Models in `gender-classifier ui`"
                ) from None
            raise


def download_version(client: MlflowClient, version: ModelVersion, folder: Path) -> Path:
    """Copy the files of ``version`` below ``folder``; return the ONNX file among them.

    Raises:
        TrackingError: the artifact store does not answer, or the version holds no ONNX file.
    """
    uri = f"models:/{version.name}/{version.version}"
    with fluent(client), one_line_errors():
        copied = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    found = sorted(copied.rglob("*.onnx"))
    if len(found) != 1:
        raise TrackingError(f"{uri}: holds {len(found)} ONNX files, not one; name a version that `evaluate` registered")
    return found[0]


def _parse_reference(reference: str) -> tuple[str, str, str]:
    """Return name, version and alias; one of the last two is empty."""
    found = re.fullmatch(r"models:/([^/@]+)(?:/(\d+)|@([^/@]+))", reference)
    if found is None:
        raise TrackingError(
            f"{reference}: not a model of the registry; write models:/{REGISTERED_MODEL}@{CHAMPION} or "
            f"models:/{REGISTERED_MODEL}/3"
        )
    return found[1], found[2] or "", found[3] or ""


def find_champion(client: MlflowClient) -> ModelVersion | None:
    """Return the champion, or None."""
    try:
        return client.get_model_version_by_alias(REGISTERED_MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _find_last_champion(client: MlflowClient) -> ModelVersion | None:
    """Return the champion; where it was deleted, the last one before it that still exists; or None."""
    current = find_champion(client)
    if current is not None:
        return current
    existing = _keep_existing(client, _read_history(client))
    return client.get_model_version(REGISTERED_MODEL, existing[-1]) if existing else None


def _keep_existing(client: MlflowClient, history: Sequence[str]) -> list[str]:
    existing = {str(found.version) for found in _search_versions(client)}  # SQL gives an int here
    return [version for version in history if version in existing]


def _crown(client: MlflowClient, version: str) -> None:
    client.set_registered_model_alias(REGISTERED_MODEL, CHAMPION, version)
    history = [*(one for one in _read_history(client) if one != version), version]
    client.set_registered_model_tag(REGISTERED_MODEL, _HISTORY, json.dumps(history))


def _read_history(client: MlflowClient) -> list[str]:
    """Return the versions that were champion, oldest first; none where nothing was registered yet."""
    try:
        tags = client.get_registered_model(REGISTERED_MODEL).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return []
        raise
    return [str(version) for version in json.loads(tags.get(_HISTORY, "[]"))]


def _search_versions(client: MlflowClient) -> list[ModelVersion]:
    return list(client.search_model_versions(f"name = '{REGISTERED_MODEL}'"))


def _read_contender(version: ModelVersion) -> Contender:
    tags = {RENAMED_METRICS.get(key, key): value for key, value in version.tags.items()}
    metrics = {name: float(tags[name]) for name in COMPARED if name in tags}
    digests = {split: version.tags.get(f"{split}.digest", "") for split in ("val", "test")}
    corrections = {key.removeprefix(_CORRECTIONS): int(tags[key]) for key in tags if key.startswith(_CORRECTIONS)}
    gaps = {
        found[1]: Gap(float(value), version.tags.get(name_gap_digest(found[1]), ""))
        for key, value in tags.items()
        if (found := _GAP.fullmatch(key))
    }
    return Contender(str(version.version), metrics, digests, corrections, gaps)

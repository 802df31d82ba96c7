"""What a run is: its name and tags, and which earlier run a stage goes on with."""

import getpass
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run, RunTag
from mlflow.exceptions import MlflowException

from gender_classifier.common.paths import find_main_root
from gender_classifier.common.processes import identify_process
from gender_classifier.data.file_names import describe_value
from gender_classifier.errors import GenderClassifierError
from gender_classifier.track.delivery import MAX_METRICS
from gender_classifier.track.store import find_experiments, shorten

# Tag: what a run works on, hashed.
WORK_TAG = "work"

# Tag of a FAILED run: why, in one line.
ERROR_TAG = "error"

_NOTE_TAG = "mlflow.note.content"

_EXPERIMENT_REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/(.+)")


def describe_source(stage: str, root: Path) -> dict[str, str]:
    """Return DVC's names for this run, and MLflow's own tags for script, user and commit."""
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or run_git(root, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    tags = {
        "dvc.exp": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.stage": stage,
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
        "mlflow.source.name": f"stages/{stage}.py",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": commit,
        "mlflow.user": _name_user(),
    }
    return {key: value for key, value in tags.items() if value}


def describe_process(key: str) -> dict[str, str]:
    """Return the tags that later commands need: which process the run belongs to, and ``key``, what it works on."""
    return identify_process() | ({WORK_TAG: key} if key else {})


def name_run(tags: Mapping[str, str]) -> str:
    """Return the DVC experiment's name, or ``repro`` and the commit."""
    commit = tags.get("mlflow.source.git.commit", "")
    return tags.get("dvc.exp") or (f"repro-{commit[:7]}" if commit else "repro")


def describe_error(error: Exception, root: Path) -> str:
    """Return ``error`` in one line, without secrets and the folders of this machine."""
    text = shorten(error).replace(f"{root}/", "")
    kind = "" if isinstance(error, GenderClassifierError) else f"{type(error).__name__}: "
    return kind + re.sub(r"(?<![\w./:])~?/(?:[^\s/:'\"]+/)+", "", text)


def find_run(client: MlflowClient, run_id: str) -> Run | None:
    """Return the run, or None if the store does not know it or it was deleted."""
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return run if run.info.lifecycle_stage == "active" else None


def find_stillborn(client: MlflowClient, experiment: str, key: str) -> Run | None:
    """Return the newest run of the same work that ended before its first metric (``system/`` aside)."""
    experiment_id = find_experiments(client).get(experiment)
    if not key or experiment_id is None:
        return None
    found = client.search_runs([experiment_id], f"tags.`{WORK_TAG}` = '{key}' and attributes.status != 'FINISHED'")
    return next((run for run in found if run.info.status != "RUNNING" and not _has_figures(run)), None)


def goes_on(run: Run, params: Mapping[str, object], tags: Mapping[str, str]) -> bool:
    """Return True if this process may write to ``run``: same params, and not another experiment's finished row."""
    logged = run.data.params
    if any(describe_value(logged.get(key, value)) != describe_value(value) for key, value in params.items()):
        return False
    was = run.data.tags
    is_complete = run.info.status == "FINISHED" and was.get("dvc.stage") == "evaluate"
    name = tags.get("dvc.exp", "")
    return not is_complete or name in split_names(was.get("dvc.exp", "")) or not name


def take_over(client: MlflowClient, run: Run, tags: Mapping[str, str], root: Path) -> dict[str, str]:
    """Remove from ``run`` what no longer holds: its error, and names of experiments that DVC does not have.

    A stopped ``dvc exp run`` leaves no experiment behind; its run may be finished by ``dvc repro``.

    Returns:
        ``tags`` with all names that the run keeps in ``dvc.exp``.
    """
    was, kept = run.data.tags, dict(tags)
    names = split_names(was.get("dvc.exp", ""))
    if names:
        known = {name for name, _ in list_dvc_experiments(find_main_root(root))}
        names = [name for name in names if name in known]
    if name := tags.get("dvc.exp", ""):
        names = [*(other for other in names if other != name), name]
    if names:
        kept["dvc.exp"] = ", ".join(names)
    gone = {ERROR_TAG} | (set() if names else {"dvc.exp", "dvc.baseline"})
    for key in sorted(gone & was.keys()):
        client.delete_tag(run.info.run_id, key)
    return kept


def copy_record(client: MlflowClient, source: Run, run_id: str) -> None:
    """Give a run that continues another one that one's curves, inputs and artifacts; what is new replaces them."""
    skipped = ("mlflow.", "dvc.", "process.", ERROR_TAG)
    tags = {key: value for key, value in source.data.tags.items() if not key.startswith(skipped) or key == _NOTE_TAG}
    points = [
        point
        for name in source.data.metrics
        if not name.startswith(("test/", "extra/"))
        for point in client.get_metric_history(source.info.run_id, name)
    ]
    for start in range(0, len(points), MAX_METRICS):
        client.log_batch(run_id, metrics=points[start : start + MAX_METRICS])
    client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])
    if source.inputs is not None:
        client.log_inputs(run_id, source.inputs.dataset_inputs)
    with tempfile.TemporaryDirectory() as folder:
        client.download_artifacts(source.info.run_id, "", folder)
        client.log_artifacts(run_id, folder)


def split_names(text: str) -> list[str]:
    """Return the names in a tag ``dvc.exp``."""
    return [name for name in text.split(", ") if name]


def list_dvc_experiments(root: Path) -> list[tuple[str, str]]:
    """Return name and commit of each of DVC's experiments."""
    listed = run_git(root, "for-each-ref", "refs/exps", "--format=%(objectname) %(refname)").splitlines()
    pairs = (line.split(" ", 1) for line in listed)
    matches = ((_EXPERIMENT_REF.fullmatch(ref), commit) for commit, ref in pairs)
    return [(match[1], commit) for match, commit in matches if match]  # the others are DVC's own bookkeeping


def run_git(root: Path, *arguments: str) -> str:
    """Return what Git prints; nothing where it fails or is not installed, as in a container."""
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    except OSError:
        return ""


def _has_figures(run: Run) -> bool:
    return any(not key.startswith("system/") for key in run.data.metrics)


def _name_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return str(os.getuid())

"""DVC's experiments, read from Git: which name stands for which MLflow run.

DVC restores an experiment whose results it has cached without running a stage, so that no stage can tell MLflow of
the new name.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import dvc.api
import yaml
from dvc.exceptions import DvcException

from gender_classifier.common.paths import Layout

_REF = re.compile(r"refs/exps/([0-9a-f]{2})/([0-9a-f]{38})/(.+)")


@dataclass(frozen=True)
class DvcExperiment:
    """``run_id`` is the MLflow run that trained its model."""

    name: str
    baseline: str
    run_id: str


def find_dvc_experiments(root: Path) -> list[DvcExperiment]:
    """Return the experiments of the checkout at ``root`` whose model is known, by name."""
    found = []
    run_ids: dict[str, str | None] = {}  # by the content's hash: many experiments may share one
    for line in _git(root, "for-each-ref", "refs/exps", "--format=%(refname) %(objectname)").splitlines():
        ref, commit = line.split()
        match = _REF.fullmatch(ref)
        if match is None:  # DVC's own bookkeeping
            continue
        content = _hash_of_run_file(root, commit)
        if content is None:
            continue
        if content not in run_ids:
            run_ids[content] = _read_run_id(root, commit)
        run_id = run_ids[content]
        if run_id is not None:
            found.append(DvcExperiment(match[3], match[1] + match[2], run_id))
    return sorted(found, key=lambda one: (one.name, one.baseline))


def _hash_of_run_file(root: Path, commit: str) -> str | None:
    lock = yaml.safe_load(_git(root, "show", f"{commit}:./dvc.lock") or "{}")  # ./: the project may be a subfolder
    outs = lock.get("stages", {}).get("train", {}).get("outs", [])
    name = Layout(Path()).mlflow_run_path.as_posix()
    return next((out.get("md5") for out in outs if out.get("path") == name), None)


def _read_run_id(root: Path, commit: str) -> str | None:
    path = Layout(root).mlflow_run_path
    repository = next((place for place in (root, *root.parents) if (place / ".dvc").is_dir()), root)
    try:
        text = dvc.api.read(path.relative_to(repository).as_posix(), repo=str(repository), rev=commit, mode="r")
    except (DvcException, OSError):  # neither in the cache nor at a remote
        return None
    value = yaml.safe_load(text)
    return str(value["run_id"]) if isinstance(value, dict) and "run_id" in value else None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603
    except OSError:  # a container need not have Git
        return ""

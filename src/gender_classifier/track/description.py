"""Tags that say what a run is: DVC's names, the process, the commit."""

import getpass
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from gender_classifier.common.processes import identify_process


def describe_process(stage: str, root: Path) -> dict[str, str]:
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


def name_run(tags: Mapping[str, str]) -> str:
    commit = tags.get("mlflow.source.git.commit", "")
    return tags.get("dvc.exp") or (f"repro-{commit[:7]}" if commit else "repro")


def _head_commit(root: Path) -> str:
    command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:  # a container need not have Git
        return ""

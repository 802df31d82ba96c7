"""A clone of the working tree to run real commands in, and small params for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from mlflow import MlflowClient
from mlflow.entities import Run
from warm import warm_programs

from gender_classifier.track.store import find_tracking_uri

ROOT = Path(__file__).parents[1]

SMALL = {
    "epochs": 1,
    "batch_size": 64,
    "ingest": {"sample_train": 160, "sample_val": 40},
    "preprocess": {"val_fraction": 0.2},
    "evaluate": {"robustness_images": 8},
}


class Checkout:
    """A clone of this project's working tree in ``folder``, and the commands a user types in it.

    ``repository`` is the folder that Git and DVC manage: the same one, or one above it.
    """

    is_warm = True
    """Whether what ``run`` starts is forked from a process with its libraries, or a real interpreter."""

    def __init__(self, folder: Path, repository: Path | None = None) -> None:
        self.folder, self.repository = folder, repository or folder

    @staticmethod
    def environment(**variables: str) -> dict[str, str]:
        """Return what a user's shell would hand on, without settings of DVC or MLflow, plus ``variables``."""
        # Each clone compiles its modules once, not once a process.
        dropped = ("MLFLOW_", "DVC_", "OMP_", "PYTHONDONTWRITEBYTECODE")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
        return {
            **kept,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "OMP_NUM_THREADS": "1",
            **variables,
        }

    @classmethod
    def warm_path(cls) -> str:
        """Return a PATH with which DVC's stages are forked from a process that has their libraries."""
        return f"{warm_programs() / 'stages'}{os.pathsep}{cls.environment()['PATH']}"

    def run(self, *command: str, check: bool = True, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = self.environment(**variables)
        can_fork = all(key.startswith(("MLFLOW_", "DVC_")) for key in variables)  # others may count at import
        if can_fork and self.is_warm and command[0] in ("dvc", "gender-classifier"):
            environment["PATH"] = f"{warm_programs() / 'commands'}{os.pathsep}{self.warm_path()}"
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start a command in a session of its own, as a terminal does; its output goes to ``started.log``."""
        with (self.folder / "started.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.environment(**variables), stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip

    def read(self, path: str) -> Any:
        return json.loads((self.folder / path).read_text())

    @property
    def store(self) -> str:
        return find_tracking_uri(self.folder)

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.store)

    def runs(self, experiment: str = "gender-classifier") -> list[Run]:
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        return sorted(self.client.search_runs([found.experiment_id]), key=lambda run: run.info.start_time)

    def artifacts(self, run: Run, folder: str = "") -> set[str]:
        return {Path(item.path).name for item in self.client.list_artifacts(run.info.run_id, folder)}


def clone(repository: Path, changes: dict[str, Any], inside: str = "") -> Checkout:
    """Copy what Git would track into a new repository, with params shrunken and committed.

    Args:
        repository: its folder.
        changes: of params.
        inside: where in it the project is; DVC and Git manage the whole.
    """
    folder = repository / inside
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and name != "dvc.lock" and not name.startswith("metrics/"):
            target = (repository if name.startswith(".dvc/") else folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / name).read_bytes())
    params = yaml.safe_load((folder / "params.yaml").read_text())
    for key, value in changes.items():
        params[key] = {**params[key], **value} if isinstance(value, dict) else value
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    checkout = Checkout(folder, repository)
    checkout.run("git", "init", "-q", "-b", "main", str(repository))
    checkout.run("git", "config", "user.name", "A Tester")
    checkout.run("git", "config", "user.email", "tester@example.org")
    checkout.run("git", "add", "-A", str(repository))
    checkout.run("git", "commit", "-q", "-m", "start")
    return checkout


def copy_checkout(checkout: Checkout, repository: Path) -> Checkout:
    """Copy a whole repository, with its runs, to the new folder ``repository``."""
    shutil.copytree(checkout.repository, repository, symlinks=True)
    copied = Checkout(repository / checkout.folder.relative_to(checkout.repository), repository)
    copied.run("gender-classifier", "sync")  # the artifacts are those of the copy from here on
    return copied

"""Commands that README shows and no other test runs work as they are written."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from checkout import ROOT, Checkout
from conftest import client

from gender_classifier.track.run import track

README = (ROOT / "README.md").read_text()


def test_deleted_runs_are_removed_for_good(root: Path) -> None:
    (root / "figure.txt").touch()
    with track("train", root, params={}) as deleted, track("train", root, params={}) as kept:
        deleted.log_artifact(root / "figure.txt")
    client(root).delete_run(deleted.run_id)
    (command,) = re.findall(r"`([^`]*mlflow gc[^`]*)`", " ".join(README.split()))
    subprocess.run(command, shell=True, cwd=root, env=Checkout.environment(), capture_output=True, check=True)
    experiment = client(root).get_run(kept.run_id).info.experiment_id
    assert {run.info.run_id for run in client(root).search_runs([experiment], run_view_type=3)} == {kept.run_id}
    assert not list((root / "mlartifacts").rglob("figure.txt"))

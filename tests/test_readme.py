"""Commands that README shows and no other test runs work as they are written."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from checkout import ROOT, Checkout
from conftest import client, picture

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


def test_the_python_snippet_runs_without_torch(served_model: Path, tmp_path: Path) -> None:
    (snippet,) = (one for one in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import Predictor" in one)
    (tmp_path / "models").mkdir()
    shutil.copy(served_model, tmp_path / "models" / "model.onnx")
    (tmp_path / "one.jpg").write_bytes(picture(1))
    code = "import sys\nfor name in ('torch', 'mlflow', 'dvc', 'pydantic'): sys.modules[name] = None\n" + snippet
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=Checkout.environment(PYTHONPATH=str(ROOT / "src")),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split()[:2] in (["one.jpg", "female"], ["one.jpg", "male"])
    assert second.startswith("two.jpg  0.0 None cannot be read")

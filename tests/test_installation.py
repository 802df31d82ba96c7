"""The core, without extras, is small, and enough to use a model."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from checkout import ROOT, Checkout
from conftest import picture
from served import write_model

from gender_classifier.common.paths import PRETRAINED_DIR

DEPENDENCIES = {
    re.split(r"[^\w.-]", text)[0].lower()
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
}


LOADED = """
import json, sys
before = set(sys.modules)  # of the environment's start
import gender_classifier.predict.explain, gender_classifier.serve.batching, gender_classifier.serve.decoding_process
from gender_classifier.cli.main import main
model = sys.argv[1]
sys.stderr.isatty = lambda: True  # progress bars are for terminals
assert main(["predict", "images", "--model", model]) == 0
assert main(["monitor", "images", "--model", model]) in (0, 3, 4)
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def test_using_a_model_loads_the_core_alone_and_all_of_it(tmp_path: Path) -> None:
    reference = {"brightness": {"split": "train", "edges": [0, 0.5, 1], "counts": [1, 1]}}
    model = write_model(tmp_path / "model.onnx", {"reference": json.dumps(reference)})
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(picture(1))
    done = subprocess.run(
        [sys.executable, "-c", LOADED, str(model)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    owners = metadata.packages_distributions()
    loaded = {owner.lower() for name in json.loads(done.stdout.splitlines()[-1]) for owner in owners.get(name, ())}
    assert loaded - {"gender-classifier"} == DEPENDENCIES


EXTRAS_ALONE = {"torch", "torchvision", "mlflow", "dvc", "scikit-learn", "scipy", "matplotlib", "onnx", "fastapi"}


@pytest.mark.slow
def test_a_fresh_environment_with_the_core_alone_answers(tmp_path: Path) -> None:
    uv = shutil.which("uv", path=Checkout.environment()["PATH"])
    if uv is None:
        pytest.skip("uv is not installed")
    environment = tmp_path / "venv"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    python = environment / "bin" / "python"
    install = [uv, "pip", "install", "--quiet", "--python", python]
    reached = subprocess.run([*install, "--dry-run", *DEPENDENCIES], capture_output=True, text=True, check=False)
    if reached.returncode:
        pytest.skip(f"no package index can be reached: {' '.join(reached.stderr.split())[:200]}")
    subprocess.run([*install, ROOT], check=True)
    (tmp_path / "me.jpg").write_bytes(picture(1))
    is_shipped = (PRETRAINED_DIR / "model.onnx").is_file()
    model = "pretrained" if is_shipped else str(write_model(tmp_path / "model.onnx"))
    done = subprocess.run(
        [environment / "bin" / "gender-classifier", "predict", "me.jpg", "--model", model, "--format", "json",
         "--threshold", "0"],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] in ("female", "male")
    listed = subprocess.run(
        [uv, "pip", "list", "--python", python, "--format", "json"], capture_output=True, text=True, check=True
    )
    installed = {package["name"] for package in json.loads(listed.stdout)}
    assert DEPENDENCIES | {"gender-classifier"} <= installed
    assert not installed & EXTRAS_ALONE

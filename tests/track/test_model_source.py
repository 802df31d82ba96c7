"""Names of models: paths stand as they are, names of the registry are looked up and downloaded."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import onnx
import pytest
from checkout import ROOT
from conftest import client
from served import SIZE, grey, served, write_model

from gender_classifier.common import paths
from gender_classifier.errors import MissingPackageError, ModelError, TrackingError
from gender_classifier.predict.predictor import Predictor
from gender_classifier.track.model_source import find_model
from gender_classifier.track.registration import register_model
from gender_classifier.track.registry import promote
from gender_classifier.track.run import track


def register(root: Path, path: Path) -> str:
    card = root / "model_card.md"
    card.write_text("# Model card\n")
    with track("evaluate", root, params={}) as run:
        return register_model(
            run.client, run.run_id, path, name="m", image_size=SIZE, num_classes=2, metrics={}, tags={}, card=card
        )


def test_the_shipped_models_name_mistyped_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(ModelError, match=r"^pretraind: no such file; did you mean `pretrained`"),
        find_model("pretraind", tmp_path),
    ):
        pass
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretraind").touch()
    with find_model("pretraind", tmp_path) as found:
        assert found.path == Path("pretraind")


def test_outside_a_project_there_is_no_default_model_unless_the_file_is_there(tmp_path: Path) -> None:
    path = tmp_path / "models" / "model.onnx"
    with pytest.raises(ModelError, match="nor is this a project .*; run in the project's folder, or give --model pret"):
        find_model(None, tmp_path).__enter__()
    (tmp_path / "dvc.yaml").touch()
    with find_model(None, tmp_path) as found:
        assert found == (path, None)  # the predictor says that it can be made
    (tmp_path / "dvc.yaml").unlink()
    path.parent.mkdir()
    path.touch()
    with find_model(None, tmp_path) as found:
        assert found == (path, None)


def test_a_path_stands_as_it_is_without_mlflow(tmp_path: Path) -> None:
    with find_model("some/model.onnx", tmp_path) as found:
        assert found == (Path("some/model.onnx"), None)
    code = (
        "import sys; from pathlib import Path; from gender_classifier.track.model_source import find_model;"
        "find_model('model.onnx', Path()).__enter__(); print('mlflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr


def test_the_bare_word_is_the_model_that_the_package_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path)
    with pytest.raises(ModelError, match="model.onnx: no such file; make it in a checkout with `make pretrained"):
        find_model("pretrained", tmp_path).__enter__()
    shipped = write_model(tmp_path / "model.onnx")
    with find_model("pretrained", tmp_path) as found:
        assert found == (shipped, None)
    with find_model("./pretrained", tmp_path) as found:
        assert found == (Path("pretrained"), None)


def test_a_version_of_the_registry_says_the_same_as_the_file_it_was_made_of(root: Path) -> None:
    path = write_model(root / "model.onnx")
    another = onnx.load(str(path))
    another.graph.doc_string = "another model"
    onnx.save(another, str(root / "another.onnx"))
    assert [register(root, root / "another.onnx"), register(root, path)] == ["1", "2"]
    promote(client(root), "1", "a test")
    expected = Predictor(path)
    images = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    for name, version in (("@champion", "1"), ("@challenger", "2"), ("/2", "2")):
        with find_model(f"models:/gender-classifier{name}", root) as found:
            assert found.registry_version == version
            predictor = Predictor(found.path)
        assert not found.path.exists()
        assert dict(predictor.metadata) == dict(expected.metadata)
        np.testing.assert_array_equal(predictor.compute_probs(images), expected.compute_probs(images))


def test_the_service_takes_the_champion(root: Path) -> None:
    path = write_model(root / "model.onnx")
    register(root, path)
    promote(client(root), "1", "a test")
    path.unlink()
    with served("models:/gender-classifier@champion", root) as running:
        described = httpx.get(f"{running.address}/model", trust_env=False).json()
        (found,) = httpx.post(f"{running.address}/predict", files={"images": grey(204)}, trust_env=False).json()
    assert (described["registry_version"], described["data_digest"]) == ("1", "0123456789abcdef")
    assert found["probs"] == {"female": 0.2, "male": 0.8}


@pytest.mark.parametrize(
    "name", ["models:/gender-classifier", "models:gender-classifier/1", "models:/a/b/c", "models:/a@"]
)
def test_what_is_no_name_of_the_registry(root: Path, name: str) -> None:
    with pytest.raises(TrackingError, match="not a model of the registry; write models:/gender-classifier@champion or"):
        find_model(name, root).__enter__()


@pytest.mark.parametrize("name", ["models:/gender-classifier@best", "models:/gender-classifier/7", "models:/other/1"])
def test_a_version_that_is_not_there(root: Path, name: str) -> None:
    register(root, write_model(root / "model.onnx"))
    with pytest.raises(TrackingError, match=f"{name}: no such version in the registry sqlite:///"):
        find_model(name, root).__enter__()


def test_without_a_champion_the_way_to_one_is_named(root: Path) -> None:
    name = "models:/gender-classifier@champion"
    register(root, write_model(root / "model.onnx"))
    with pytest.raises(TrackingError, match=f"{name}: no version is champion yet in the registry sqlite:///.*; name "
                       "models:/gender-classifier@challenger, .* or choose one with `gender-classifier promote N`$"):  # fmt: skip
        find_model(name, root).__enter__()
    client(root).delete_model_version("gender-classifier", "1")
    with pytest.raises(TrackingError, match=f"{name}: no such version in the registry"):
        find_model(name, root).__enter__()


def test_without_a_store_and_without_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match="no project here"):
        find_model("models:/gender-classifier@champion", tmp_path).__enter__()
    monkeypatch.delitem(sys.modules, "gender_classifier.track.registry")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingPackageError, match="mlflow is not installed; install the extra `pipeline`"):
        find_model("models:/gender-classifier@champion", tmp_path).__enter__()


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from gender_classifier.predict import predictor
from gender_classifier.track import registry
from gender_classifier.cli.main import main

number, during = signal.Signals[sys.argv[1]], sys.argv[2]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with SIGINT ignored

def interrupt(*_, **__):
    os.kill(os.getpid(), number)
    raise AssertionError("survived")

if during == "download":
    registry.mlflow.artifacts.download_artifacts = interrupt
else:
    predictor.onnxruntime.InferenceSession = interrupt
print("ready", flush=True)
sys.exit(main(["predict", "a.png", "--model", "models:/gender-classifier@champion"]))
"""


@pytest.mark.parametrize("during", ["download", "loading"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_what_was_downloaded_is_removed_when_a_signal_ends_the_command(root: Path, name: str, during: str) -> None:
    register(root, write_model(root / "model.onnx"))
    promote(client(root), "1", "a test")
    temporary = root / "temporary"
    temporary.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, name, during],
        cwd=root,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ready\n", done.stderr
    assert done.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], done.stderr
    assert not list(temporary.glob("gender-classifier-*"))

"""The model that the package ships: how it is made, and the files themselves."""

import hashlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from checkout import Checkout
from conftest import draw_pixels, encode

from gender_classifier.common.paths import PRETRAINED_DIR, Layout
from gender_classifier.data.dataset import open_split
from gender_classifier.errors import ModelError
from gender_classifier.metrics.histograms import parse_reference
from gender_classifier.model.model_file import load_model, read_safetensors
from gender_classifier.pipeline import pretrained
from gender_classifier.pipeline.params import load_params
from gender_classifier.predict.predictor import Predictor

MAX_BYTES = 4_000_000  # of the ONNX file: a clone and a wheel stay small


def read_digest(card: str, name: str) -> str:
    """Return the SHA-256 that the card gives for a file."""
    (digest,) = re.findall(rf"^\| `{re.escape(name)}` .* `([0-9a-f]{{64}})` \|$", card, re.MULTILINE)
    return digest


@pytest.fixture(scope="module")
def made(repro: Checkout, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pretrained.Shipped]:
    """Return the files made of a small experiment's results, and their figures."""
    layout, target = Layout(repro.folder), tmp_path_factory.mktemp("pretrained")
    return target, pretrained.write_pretrained(layout, load_params(layout.params_path), "Drawn <b>here</b>", target)


def test_the_figures_are_of_the_int8_file(made: tuple[Path, pretrained.Shipped], repro: Checkout) -> None:
    target, shipped = made
    predictor, layout = Predictor(target / "model.onnx"), Layout(repro.folder)
    test = open_split(layout.images_path("test"), layout.labels_path("test"))
    probs = predictor.compute_probs(np.asarray(test.images))
    accuracy = float((probs.argmax(axis=1) == test.labels).mean())
    told = json.loads(predictor.metadata["metrics"])
    assert told["accuracy"] == pytest.approx(accuracy)
    assert told["ece"] == pytest.approx(shipped.evaluation.report.metrics["ece"])
    same = probs.argmax(axis=1) == Predictor(layout.onnx_path).compute_probs(np.asarray(test.images)).argmax(axis=1)
    assert shipped.agreement == pytest.approx(float(same.mean()))
    assert predictor.metadata["precision"] == "int8"
    flags = [answer.unfamiliar for answer in predictor.compute(np.asarray(test.images))]
    assert told["unfamiliar_share"] == pytest.approx(flags.count(True) / len(flags))
    assert {"confidence", "brightness"} <= parse_reference(predictor.metadata["reference"], "").keys()  # for monitor
    card = (target / "model_card.md").read_text()
    low, high = (shipped.evaluation.report.metrics[f"accuracy_{end}"] for end in ("low", "high"))
    assert re.search(rf"^test +{len(test.labels)} +{accuracy:.4f} +{low:.4f} to {high:.4f} ", card, re.MULTILINE)
    assert f"expected calibration error {told['ece']:.4f}" in card
    assert re.search(rf"^test +{len(test.labels)} +{told['unfamiliar_share']:.1%} ", card, re.MULTILINE)


def test_the_card_names_files_terms_data_and_params(made: tuple[Path, pretrained.Shipped]) -> None:
    target, _ = made
    assert {path.name for path in target.iterdir()} == {"model.onnx", "model.safetensors", "model_card.md"}
    card = (target / "model_card.md").read_text()
    for name in ("model.onnx", "model.safetensors"):
        assert read_digest(card, name) == hashlib.sha256((target / name).read_bytes()).hexdigest()
    assert "For study and research only" in card
    assert "Drawn &#60;b&#62;here" in card  # text, not markup
    assert re.search(r"^train\.augment\.scale +0\.25$", card, re.MULTILINE)


def test_weights_are_the_trained_ones_in_half_precision(made: tuple[Path, pretrained.Shipped], repro: Checkout) -> None:
    halved, metadata = read_safetensors(made[0] / "model.safetensors")
    _, expected = read_safetensors(Layout(repro.folder).model_path)
    assert metadata == expected
    trained = load_model(Layout(repro.folder).model_path)[0].state_dict()
    assert halved.keys() == trained.keys()
    for name, value in halved.items():
        assert value.dtype == torch.float16, name
        assert torch.equal(value, trained[name].half()), name


def test_making_it_again_gives_the_same_files(
    made: tuple[Path, pretrained.Shipped], repro: Checkout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(pretrained, "PRETRAINED_DIR", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretrained", "--data", "Drawn <b>here</b>"])
    monkeypatch.chdir(repro.folder)
    assert pretrained.main() == 0
    for path in made[0].iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    assert re.match(
        r"pretrained: test accuracy 0\.\d{4} .* % of the predictions as in fp32; see ",
        capsys.readouterr().out.replace("%", " %"),
    )


def test_without_results_it_says_so_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "PRETRAINED_DIR", tmp_path / "pretrained")
    monkeypatch.setattr(sys, "argv", ["pretrained", "--data", "x"])
    monkeypatch.chdir(tmp_path)
    assert pretrained.main() == 1
    assert capsys.readouterr().err.endswith(
        "params.yaml: no such file; run in a checkout, or restore it: git checkout params.yaml\n"
    )
    assert not (tmp_path / "pretrained").exists()


def test_weights_beyond_half_precision_are_refused() -> None:
    with pytest.raises(ModelError, match="tensor `a`: a value exceeds 65,504"):
        pretrained._halve({"a": torch.tensor([70_000.0]), "b": torch.tensor([10**6])})


def test_the_shipped_files_are_those_of_their_card() -> None:
    card = (PRETRAINED_DIR / "model_card.md").read_text()
    for name in ("model.onnx", "model.safetensors"):
        assert read_digest(card, name) == hashlib.sha256((PRETRAINED_DIR / name).read_bytes()).hexdigest(), name
    assert (PRETRAINED_DIR / "model.onnx").stat().st_size <= MAX_BYTES


def test_the_shipped_model_predicts() -> None:
    predictor = Predictor(PRETRAINED_DIR / "model.onnx")
    (found,) = predictor.predict([("a.png", encode(draw_pixels(1), "PNG"))])
    assert found.error == ""
    assert found.label in predictor.classes
    assert sum(found.probs) == pytest.approx(1, abs=1e-3)
    assert predictor.metadata["precision"] == "int8"
    told = json.loads(predictor.metadata["metrics"])
    card = (PRETRAINED_DIR / "model_card.md").read_text()
    assert re.search(rf"^test .*{told['accuracy']:.4f}", card, re.MULTILINE)
    assert (
        onnx.load(PRETRAINED_DIR / "model.onnx").graph.node[0].doc_string == ""
    )  # no paths of the machine it was made on

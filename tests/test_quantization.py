"""The int8 variant is a model of this project, says nearly the same, and needs enough pictures to be made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import draw_pixels, picture

from gender_classifier.cli import main
from gender_classifier.predictor import Predictor
from gender_classifier.quantization import quantize_onnx

IMAGES = np.stack([draw_pixels(seed, 64, 64) for seed in range(96)])


def test_the_variant_says_nearly_the_same(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "int8.onnx"
    quantize_onnx(served_model, target, IMAGES)
    quantize_onnx(served_model, tmp_path / "again.onnx", IMAGES)
    assert target.read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert target.stat().st_size < 0.3 * served_model.stat().st_size
    original, variant = Predictor(served_model), Predictor(target)
    assert variant.classes == original.classes
    assert dict(variant.metadata) == dict(original.metadata) | {"precision": "int8"}
    assert {node.op_type for node in onnx.load(target).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    others = np.stack([draw_pixels(seed, 64, 64) for seed in range(200, 240)])
    np.testing.assert_allclose(variant.compute_probs(others), original.compute_probs(others), atol=0.01)
    assert np.ptp(variant.compute_probs(others)[:, 0]) > 0  # not a constant
    assert capsys.readouterr().out == ""


def test_the_command_writes_it_and_says_how_far_it_agrees(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(40):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    arguments = ["quantize", str(tmp_path / "int8.onnx"), *[str(tmp_path)] * 13, "--model", str(served_model)]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "of 264 predictions agree" in out
    assert out.startswith(f"{tmp_path / 'int8.onnx'}: 2.")


def test_too_few_pictures_are_refused(tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    assert main(["quantize", str(tmp_path / "int8.onnx"), str(tmp_path), "--model", str(served_model)]) == 1
    assert "1 readable pictures are too few; give at least 512" in capsys.readouterr().err
    assert not (tmp_path / "int8.onnx").exists()

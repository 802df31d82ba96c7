"""The int8 variant is a model of this project, says nearly the same, and needs enough images to be made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import draw_pixels, picture
from numpy.typing import NDArray
from onnxruntime.quantization import quantize_static
from served import write_model

from gender_classifier.cli.main import main
from gender_classifier.evaluate.export import export_onnx
from gender_classifier.metrics.calibration import softmax
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.predict import quantization
from gender_classifier.predict.predictor import Predictor
from gender_classifier.predict.quantization import quantize_onnx

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
    assert variant.unfamiliarity_threshold is not None
    changed = {"precision": "int8", "unfamiliarity_threshold": repr(variant.unfamiliarity_threshold)}
    assert dict(variant.metadata) == dict(original.metadata) | changed
    assert variant.unfamiliarity_threshold != original.unfamiliarity_threshold  # fitted to its own outputs
    flags = [answer.unfamiliar for answer in variant.compute(IMAGES)]
    assert flags.count(True) == 1  # the threshold is the 95th of 96 distances: 97 % of 97, rounded up
    assert {node.op_type for node in onnx.load(target).graph.node} >= {"QuantizeLinear", "DequantizeLinear"}
    others = np.stack([draw_pixels(seed, 64, 64) for seed in range(200, 240)])
    np.testing.assert_allclose(variant.compute_probs(others), original.compute_probs(others), atol=0.01)
    assert np.ptp(variant.compute_probs(others)[:, 0]) > 0  # not a constant
    assert capsys.readouterr().out == ""


def find_saturating(path: Path) -> list[str]:
    """Return the tensors with which a processor without VNNI may saturate, whatever the images.

    Its instruction multiplies unsigned activations by signed weights, and adds two products into 16 bits.
    """
    graph = onnx.load(path).graph
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    activations = [tensors[node.input[2]].dtype == np.uint8 for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations, "no activation is quantised"
    assert all(activations), "signed activations are computed as unsigned ones, and the weights with another zero point"
    read = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"} & tensors.keys()
    weights = {name: tensors[name] for name in read if tensors[name].ndim > 1}
    assert len(weights) == 6, "five convolutions and a linear layer"
    signed = {name: value.astype(np.int64) for name, value in weights.items() if value.dtype == np.int8}
    assert len(signed) + sum(value.dtype == np.uint8 for value in weights.values()) == len(weights)
    ends = np.iinfo(np.int16)
    return [
        name
        for name, value in signed.items()
        if 2 * 255 * max(value.max(), 0) > ends.max or 2 * 255 * min(value.min(), 0) < ends.min
    ]


def test_no_processor_saturates(tmp_path: Path, served_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantize_onnx(served_model, tmp_path / "int8.onnx", IMAGES)
    assert find_saturating(tmp_path / "int8.onnx") == []

    def full_range(*args: object, **options: object) -> None:
        quantize_static(*args, **options | {"reduce_range": False})

    monkeypatch.setattr(quantization, "quantize_static", full_range)
    quantize_onnx(served_model, tmp_path / "full.onnx", IMAGES)
    assert len(find_saturating(tmp_path / "full.onnx")) == 6


def test_the_second_look_is_calibrated_on_all_pictures(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model("linear", 2, 64).eval()
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    gaps = np.diff(compute_logits(model, spec, IMAGES), axis=1)
    with torch.no_grad():  # an untrained network tells little apart; this one takes each class for as likely
        model.classifier.bias[0] += float(np.median(gaps))
        for parameter in model.classifier.parameters():
            parameter.div_(float(gaps.std()))
    once = compute_logits(model, spec, IMAGES)
    gaps = np.abs(np.diff(once, axis=1))[:, 0]
    clear, doubtful = gaps > 1, gaps < 0.5
    assert min(clear.sum(), doubtful.sum()) > 16
    export_onnx(tmp_path / "model.onnx", model, replace(spec, tta_margin=1.0), {"data_digest": "abc"})
    quantize_onnx(tmp_path / "model.onnx", tmp_path / "int8.onnx", IMAGES[clear])
    original, variant = (Predictor(tmp_path / name) for name in ("model.onnx", "int8.onnx"))
    expected = original.compute_probs(IMAGES[doubtful])
    assert np.abs(softmax(once[doubtful]) - expected).max() > 0.05  # the second look matters here
    np.testing.assert_allclose(variant.compute_probs(IMAGES[doubtful]), expected, atol=0.1)
    expected = original.compute_probs(IMAGES[clear])
    np.testing.assert_allclose(variant.compute_probs(IMAGES[clear]), expected, atol=0.1)


def test_the_command_writes_it_and_says_how_far_it_agrees(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gender_classifier.cli.quantize._CALIBRATION", 16)
    for seed in range(40):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    (tmp_path / "0.heic").write_bytes(b"")
    arguments = ["quantize", str(tmp_path / "int8.onnx"), str(tmp_path), "--model", str(served_model)]
    assert main(arguments) == 0
    out, err = capsys.readouterr()
    assert "of 24 predictions agree" in out
    assert err.count(f"quantize: {tmp_path / '0.heic'}: HEIC images are not decoded; convert it") == 1
    assert out.startswith(f"{tmp_path / 'int8.onnx'}: 2.")


def test_an_int8_model_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write_model(tmp_path / "model.onnx", {"precision": "int8"})
    (tmp_path / "a.jpg").write_bytes(picture(1))
    assert main(["quantize", str(tmp_path / "again.onnx"), str(tmp_path), "--model", str(model)]) == 1
    assert f"{model}: is an int8 model already; give a float32 one with --model" in capsys.readouterr().err
    assert not (tmp_path / "again.onnx").exists()


def test_the_command_warns_of_a_variant_that_differs(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Swapped(Predictor):
        def compute_probs(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            probs = super().compute_probs(images)
            return probs[:, ::-1] if self.metadata.get("precision") == "int8" else probs

    def copy(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
        proto = onnx.load(source)
        proto.metadata_props.add(key="precision", value="int8")
        onnx.save(proto, target)

    monkeypatch.setattr("gender_classifier.predict.predictor.Predictor", Swapped)
    monkeypatch.setattr(quantization, "quantize_onnx", copy)
    monkeypatch.setattr("gender_classifier.cli.quantize._CALIBRATION", 2)
    for seed in range(4):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    output = tmp_path / "int8.onnx"
    assert main(["quantize", str(output), str(tmp_path), "--model", str(served_model)]) == 0
    out, err = capsys.readouterr()
    assert "0.00% of 2 predictions agree" in out
    assert f"quantize: {output}: fewer than 98% of the predictions agree; use the float32 model instead" in err


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("0.jpg", "0.jpg: does not end in .onnx; give the ONNX file to write first, then the images"),
        ("", ": is a folder; give the ONNX file to write first, then the images"),
        ("model.onnx", "model.onnx: exists; remove it"),
        ("no/int8.onnx", "there is no folder"),
    ],
)
def test_nothing_is_overwritten(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
) -> None:
    for seed in range(4):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed))
    model = tmp_path / "model.onnx"
    model.write_bytes(served_model.read_bytes())
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = ["quantize", str(tmp_path / output), str(tmp_path), "--model", str(model)]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_read_only_folder_is_reported_before_the_work(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write anywhere
    assert main(["quantize", str(tmp_path / "int8.onnx"), "nowhere", "--model", str(served_model)]) == 1
    assert f"int8.onnx: cannot be written, the folder {tmp_path} is read-only" in capsys.readouterr().err


def test_too_few_pictures_are_refused(tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(picture(1))
    twice = [str(tmp_path), str(tmp_path / "a.jpg")]  # counts once
    assert main(["quantize", str(tmp_path / "int8.onnx"), *twice, "--model", str(served_model)]) == 1
    assert "too few images can be read, 1; give at least 512" in capsys.readouterr().err
    assert not (tmp_path / "int8.onnx").exists()

"""The ONNX file says the same as torch, for any batch, and is the same for the same model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from gender_classifier.errors import ModelError
from gender_classifier.evaluate.export import check_export, compute_probs, export_onnx
from gender_classifier.metrics.calibration import softmax
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.predict.predictor import Predictor

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)


@pytest.mark.parametrize("head", ["linear", "full"])
def test_probabilities_are_torchs_for_any_batch(tmp_path: Path, head: str) -> None:
    spec = ModelSpec(head, ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    torch.manual_seed(0)
    model = build_model(head, 2, 64).eval()
    path = tmp_path / "model.onnx"
    export_onnx(path, model, spec, {"data_digest": "abc"})
    expected = softmax(compute_logits(model, spec, IMAGES))
    for size in (1, 2, 5):
        np.testing.assert_allclose(compute_probs(path, IMAGES, batch_size=size), expected, atol=1e-5)
    assert check_export(path, IMAGES, expected) < 1e-5
    with pytest.raises(ModelError, match="differ from torch's by up to"):
        check_export(path, IMAGES, expected[:, ::-1])
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(metadata["classes"]) == ["female", "male"]
    assert metadata["network"] == ("AlexNet" if head == "linear" else "AlexNet (full head)")
    assert (metadata["image_size"], metadata["head"], metadata["data_digest"]) == ("64", head, "abc")


@pytest.mark.parametrize("head", ["linear", "full"])
def test_doubtful_images_are_looked_at_twice_as_in_torch(tmp_path: Path, head: str) -> None:
    """In a batch of doubtful images, of clear ones, and of both."""
    margin = {"linear": 0.01, "full": 0.03}[head]  # between the gaps of these images
    spec = ModelSpec(
        head,
        ("female", "male"),
        64,
        (0.5, 0.4, 0.3),
        (0.25, 0.2, 0.1),
        tta_margin=margin,
        bias=(margin / 500, -margin / 500),
    )
    torch.manual_seed(0)
    model = build_model(head, 2, 64).eval()
    assert not np.allclose(compute_logits(model, spec, IMAGES), compute_logits(model, replace(spec, bias=()), IMAGES))
    once = compute_logits(model, replace(spec, tta_margin=0.0), IMAGES)
    doubtful = np.abs(np.diff(once, axis=1))[:, 0] < margin
    assert 0 < doubtful.sum() < len(IMAGES)
    path = tmp_path / "model.onnx"
    export_onnx(path, model, spec, {})
    for chosen in (doubtful, ~doubtful, np.ones(len(IMAGES), bool)):
        images = IMAGES[chosen]
        expected = softmax(compute_logits(model, spec, images))
        changed = (expected != softmax(compute_logits(model, replace(spec, tta_margin=0.0), images))).any(axis=1)
        np.testing.assert_array_equal(changed, doubtful[chosen])
        for size in (1, 2, 5):
            np.testing.assert_allclose(compute_probs(path, images, batch_size=size), expected, atol=1e-6)


def test_equal_models_are_equal_files_without_traces_of_the_machine(tmp_path: Path) -> None:
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    model = build_model("linear", 2, 64).eval()
    export_onnx(tmp_path / "one", model, spec, {"version": "1", "limits": "## Limits\n- ×"})
    export_onnx(tmp_path / "two", model, spec, {"limits": "## Limits\n- ×", "version": "1"})
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert Predictor(tmp_path / "one").metadata["limits"] == "## Limits\n- ×"
    assert str(Path(__file__).parents[2]).encode() not in data
    assert b"stack_trace" not in data


def test_a_changed_prediction_is_refused_though_its_probabilities_are_near(tmp_path: Path) -> None:
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
    model = build_model("linear", 2, 64).eval()
    with torch.no_grad():  # a coin toss for every image, a little towards male
        last = list(model.parameters())[-2:]
        last[0].zero_()
        last[1].copy_(torch.tensor([0.0, 0.0001]))
    path = tmp_path / "model.onnx"
    export_onnx(path, model, spec, {})
    with pytest.raises(ModelError, match="3 of 5 predictions differ from torch's, the first in row 1"):
        check_export(path, IMAGES, np.array([[0.49998, 0.50002]] + [[0.50001, 0.49999]] * 3 + [[0.499999, 0.500001]]))
    # What torch itself cannot tell apart is no difference.
    check_export(path, IMAGES, np.array([[0.500001, 0.499999]] * 5))

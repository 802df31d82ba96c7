"""What tells unfamiliar images: distances as NumPy's, equal for equal input, kept by the model file and the ONNX file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import draw_pixels

from gender_classifier.errors import ModelError
from gender_classifier.evaluate.export import check_export, compute_outputs, compute_probs, export_onnx
from gender_classifier.metrics.calibration import softmax
from gender_classifier.model import unfamiliarity
from gender_classifier.model.features import compute_features, find_feature_layers
from gender_classifier.model.inference import compute_logits
from gender_classifier.model.model_file import ModelSpec, load_model, save_model
from gender_classifier.model.network import build_model
from gender_classifier.model.serving import fold_batch_norm
from gender_classifier.model.threshold import fit_threshold
from gender_classifier.model.unfamiliarity import (
    Unfamiliarity,
    compute_unfamiliarity,
    fit_gaussian,
    fit_unfamiliarity,
    load_unfamiliarity,
)
from gender_classifier.predict.predictor import Predictor

SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1), 0.004)
IMAGES = np.stack([draw_pixels(seed, 64, 64) for seed in range(96)])
PLAIN = np.broadcast_to(np.linspace(0, 255, 20).astype(np.uint8)[:, None, None, None], (20, 64, 64, 3)).copy()


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_model("linear", 2, 64).eval()


@pytest.fixture(scope="module")
def fitted(network: torch.nn.Module) -> Unfamiliarity:
    return fit_unfamiliarity(network, SPEC, IMAGES[:48], IMAGES[48:])


def test_the_threshold_leaves_three_in_a_hundred_above_it() -> None:
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert (scores > fit_threshold(scores)).sum() == 29  # of 1,000: the rank is 97 % of 1,001, rounded up
    assert fit_threshold(scores[:20]) == scores[:20].max()


def test_with_all_components_it_is_the_mahalanobis_distance() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + 3
    others = rng.normal(size=(50, 6)) * 4
    gaussian = fit_gaussian(torch.tensor(values, dtype=torch.float32))
    assert gaussian.components.shape == (6, 5)  # the rest is the sixth
    centered = others - values.mean(0)
    inverse = np.linalg.inv(np.cov(values.T, bias=True))
    expected = np.sqrt(np.einsum("ni,ij,nj->n", centered, inverse, centered) / 6)
    np.testing.assert_allclose(gaussian(torch.tensor(others, dtype=torch.float32)), expected, rtol=1e-3)


@pytest.mark.parametrize("width", [4, 4096])
def test_features_that_never_vary(width: int) -> None:
    for value in (1.0, 0.1):  # the mean of tenths is not exact
        constant = fit_gaussian(torch.full((10, width), value))
        assert float(constant(torch.full((1, width), value))) < 1e-3
        assert float(constant(torch.zeros(1, width))) > 100


def test_wide_features() -> None:
    features = torch.zeros(30, 4096)
    features[:, 0] = torch.randn(30, generator=torch.Generator().manual_seed(0))
    features[:, 1] = -features[:, 0]  # their sum is constant
    wide = fit_gaussian(features)
    assert wide.components.numel() <= 15_000
    first = features[:, 0]
    expected = (first - first.mean()).abs() / first.std(correction=0) / 64  # 64 squared are 4,096
    np.testing.assert_allclose(wide(features), expected, rtol=1e-3)


@pytest.mark.parametrize(("name", "layers"), [
    ("alexnet", ("features.3", "classifier")),
    ("resnet10", ("blocks.0.conv1", "classifier")),
    ("squeezenet1_1", ("features.3.squeeze", "classifier.1")),
    ("swin_t", ("features.1.0.mlp.0", "head")),
])  # fmt: skip
def test_features_of_any_network_are_the_same_without_batch_norm(name: str, layers: tuple[str, str]) -> None:
    torch.manual_seed(0)
    model = build_model("linear", 2, 64, name).eval()
    assert find_feature_layers(model, 64) == layers
    found = compute_features(model, SPEC, IMAGES[:3], layers, batch_size=2)
    folded = compute_features(fold_batch_norm(model), SPEC, IMAGES[:3], layers)
    for features, same in zip(found, folded, strict=True):
        assert features.ndim == 2
        np.testing.assert_allclose(features, same, atol=1e-4)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_unlike_images_are_unfamiliar_and_equal_input_gives_equal_numbers(
    network: torch.nn.Module, fitted: Unfamiliarity
) -> None:
    threshold = float(fitted.threshold)
    assert (compute_unfamiliarity(network, SPEC, fitted, PLAIN) > threshold).all()
    assert (compute_unfamiliarity(network, SPEC, fitted, IMAGES[48:]) > threshold).sum() == 0  # fewer than 66 images
    again = fit_unfamiliarity(network, SPEC, IMAGES[:48], IMAGES[48:])
    for name, value in fitted.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_the_model_file_keeps_it_beside_the_same_weights(
    tmp_path: Path, network: torch.nn.Module, fitted: Unfamiliarity
) -> None:
    path, old = tmp_path / "model.safetensors", tmp_path / "old.safetensors"
    save_model(path, network.state_dict(), SPEC, fitted.state_dict())
    save_model(old, network.state_dict(), SPEC)
    loaded, spec = load_model(path)
    assert spec == SPEC
    for name, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    found = load_unfamiliarity(path, loaded, spec)
    assert found is not None
    expected = compute_unfamiliarity(network, SPEC, fitted, IMAGES)
    np.testing.assert_array_equal(compute_unfamiliarity(loaded, spec, found, IMAGES), expected)
    assert load_unfamiliarity(old, loaded, spec) is None


def test_many_images_are_scored_in_blocks(
    network: torch.nn.Module, fitted: Unfamiliarity, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The features of a whole training set would not fit into memory."""
    images = np.tile(IMAGES, (-(-1100 // len(IMAGES)), 1, 1, 1))[:1100]
    expected, counts = compute_unfamiliarity(network, SPEC, fitted, images), list[int]()
    monkeypatch.setattr(unfamiliarity, "_BLOCK", 512)
    scores = compute_unfamiliarity(network, SPEC, fitted, images, on_batch=counts.append)
    np.testing.assert_array_equal(scores, expected)
    assert counts == [512, 512, 76]


@pytest.mark.parametrize(("name", "value", "message"), [
    ("gaussians.1.mean", torch.zeros(7), "belong to another network"),
    ("more", torch.zeros(1), "belong to another network"),
    ("threshold", torch.tensor(float("nan")), "not finite"),
    ("gaussians.0.rest", torch.tensor(0.0), "no deviations"),
])  # fmt: skip
def test_damaged_numbers_are_refused(
    tmp_path: Path, network: torch.nn.Module, fitted: Unfamiliarity, name: str, value: torch.Tensor, message: str
) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, network.state_dict(), SPEC, {**fitted.state_dict(), name: value})
    with pytest.raises(ModelError, match=message):
        load_unfamiliarity(path, network, SPEC)


def test_the_onnx_file_gives_the_same_distances_and_the_same_probabilities(
    tmp_path: Path, network: torch.nn.Module, fitted: Unfamiliarity
) -> None:
    path, old = tmp_path / "model.onnx", tmp_path / "old.onnx"
    export_onnx(path, network, SPEC, {}, fitted)
    export_onnx(old, network, SPEC, {})
    assert path.stat().st_size - old.stat().st_size < 300_000
    expected = compute_unfamiliarity(network, SPEC, fitted, IMAGES)
    for size in (1, 7, 96):
        probs, scores = compute_outputs(path, IMAGES, batch_size=size)
        np.testing.assert_allclose(scores, expected, rtol=1e-4)
        np.testing.assert_array_equal(probs, compute_probs(old, IMAGES, batch_size=size))
    probs = softmax(compute_logits(network, SPEC, IMAGES))
    check_export(path, IMAGES, probs, expected)
    check_export(old, IMAGES, probs)
    for wrong in ((path, None), (path, expected * 1.01), (old, expected)):
        with pytest.raises(ModelError, match="its unfamiliarity is missing or differs"):
            check_export(wrong[0], IMAGES, probs, wrong[1])
    predictor, images = Predictor(path), np.concatenate([IMAGES[:2], PLAIN[:2]])
    assert [answer.unfamiliar for answer in predictor.compute(images)] == [False, False, True, True]
    assert [answer.unfamiliar for answer in Predictor(old).compute(images)] == [None] * 4

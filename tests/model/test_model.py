"""AlexNet: sizes as torchvision's, a file that is enough by itself, weights that come or complain."""

import copy
import json
import re
import struct
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import stand_in
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import alexnet

from gender_classifier.common import paths
from gender_classifier.errors import ModelError
from gender_classifier.model.alexnet import LinearHeadAlexNet
from gender_classifier.model.inference import compute_logits, infer, normalize
from gender_classifier.model.model_file import FORMAT, ModelSpec, load_model, save_model
from gender_classifier.model.network import build_model, count_parameters
from gender_classifier.model.weights import apply_weights, load_weights

SPEC = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.4, 0.3), (0.25, 0.2, 0.1))


def test_the_linear_head_has_the_parameters_of_the_replaced_work() -> None:
    assert count_parameters(build_model("linear", 2, 64)) == 2_470_210


def test_the_full_head_is_torchvisions_alexnet_layer_by_layer() -> None:
    ours, theirs = build_model("full", 1000, 64), alexnet()
    assert count_parameters(ours) == count_parameters(theirs) == 61_100_840

    def shapes(model: nn.Module) -> list[tuple[str, str, tuple[int, ...]]]:
        seen: list[tuple[str, str, tuple[int, ...]]] = []
        for name, layer in model.named_modules():
            if not list(layer.children()):
                layer.register_forward_hook(
                    lambda layer, _, out, name=name: seen.append((name, type(layer).__name__, tuple(out.shape)))
                )
        with torch.no_grad():
            model.eval()(torch.zeros(2, 3, 64, 64))
        return seen

    found = shapes(ours)
    assert found == shapes(theirs)
    assert ("features.12", "MaxPool2d", (2, 256, 1, 1)) in found
    assert ("avgpool", "AdaptiveAvgPool2d", (2, 256, 6, 6)) in found
    assert found[-1][2] == (2, 1000)


def test_linear_features_are_torchvisions() -> None:
    model, theirs = LinearHeadAlexNet(2, 64), alexnet().features
    model.features.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.features(images), theirs(images))


@pytest.mark.parametrize("size", [63, 64, 96, 224])
def test_any_image_size_from_63_px_works(size: int) -> None:
    assert build_model("linear", 3, size)(torch.zeros(1, 3, size, size)).shape == (1, 3)


def test_images_that_are_too_small_and_unknown_heads_are_refused() -> None:
    with pytest.raises(ModelError, match="alexnet needs images of at least 63 px, not 62"):
        build_model("linear", 2, 62)
    with pytest.raises(ModelError, match="alexnet has no head 'round'; choose linear or full"):
        build_model("round", 2, 64)


def test_building_draws_from_torchs_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(build_model("linear", 2, 64).state_dict())
    same, other = [all(torch.equal(states[0][key], state[key]) for key in states[0]) for state in states[1:]]
    assert same
    assert not other


def test_normalize_is_mean_and_deviation_of_the_training_set() -> None:
    images = torch.randint(0, 256, (2, 4, 4, 3), dtype=torch.uint8)
    found = normalize(images, SPEC)
    expected = (images.numpy() / 255 - np.array(SPEC.channel_mean)) / np.array(SPEC.channel_std)
    np.testing.assert_allclose(found.permute(0, 2, 3, 1).numpy(), expected, rtol=0, atol=1e-5)


def test_logits_do_not_depend_on_the_batch_size_and_restore_training_mode() -> None:
    model = build_model("linear", 2, 64).train()
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    whole, parts = (compute_logits(model, SPEC, images, batch_size=size) for size in (5, 2))
    assert whole.shape == (5, 2)
    assert model.training
    np.testing.assert_allclose(whole, parts, atol=1e-5)


class _Sides(nn.Module):
    """A network that sees the means of an image's left and right half, which the mirror swaps."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return torch.stack([images[..., :2].mean(dim=(1, 2, 3)), images[..., 2:].mean(dim=(1, 2, 3))], dim=1)


def _draw_sides(left: float, right: float) -> torch.Tensor:
    return torch.tensor([left, left, right, right], dtype=torch.float32).expand(1, 3, 4, 4)


@given(gap=st.floats(-8, 8, width=32), margin=st.floats(0.125, 4, width=32))
def test_only_doubt_is_looked_at_twice_and_by_as_much_as_it_is_doubt(gap: float, margin: float) -> None:
    network = _Sides()
    logits = infer(network, _draw_sides(0.0, gap), replace(SPEC, tta_margin=margin))[0]
    kept = abs(gap) / margin  # of 1: at the margin
    expected = 0.0 if kept <= 0.5 else gap * min(2 * kept - 1, 1.0)
    assert float(logits[1] - logits[0]) == pytest.approx(expected, abs=1e-5)
    assert float(logits.sum()) == pytest.approx(gap, abs=1e-5)
    assert network.seen == 1 + (kept < 1) or kept == pytest.approx(1)


def test_a_second_look_at_one_image_does_not_touch_its_neighbours() -> None:
    images = torch.cat([_draw_sides(0, 5), _draw_sides(0.25, 0), _draw_sides(-3, 0)])
    network = _Sides()
    spec = replace(SPEC, tta_margin=1.0)
    assert infer(network, images, spec).tolist() == [[0, 5], [0.125, 0.125], [-3, 0]]
    assert network.seen == 4
    assert infer(network, images[::2], spec).tolist() == [[0, 5], [-3, 0]]
    assert infer(network, images, SPEC).tolist() == network(images).tolist()


def test_a_bias_moves_what_is_in_doubt() -> None:
    """Images near the moved threshold are looked at twice; those near the old one are not."""
    images = torch.cat([_draw_sides(0, 0.25), _draw_sides(2.25, 0), _draw_sides(2, 0)])
    network = _Sides()
    spec = replace(SPEC, tta_margin=1.0, bias=(-1.0, 1.0))
    assert infer(network, images, spec).tolist() == [[-1, 1.25], [0.125, 2.125], [0, 2]]
    assert network.seen == 5


def test_a_second_look_does_not_depend_on_the_batch_size() -> None:
    torch.manual_seed(0)
    model = build_model("linear", 2, 64)
    spec = replace(
        SPEC, tta_margin=0.011
    )  # amid the gaps of these images, which an untrained network tells little apart
    images = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
    once = compute_logits(model, SPEC, images)
    whole, parts = (compute_logits(model, spec, images, batch_size=size) for size in (24, 5))
    changed = (whole != once).any(axis=1)
    assert 0 < changed.sum() < len(images)
    np.testing.assert_allclose(whole, parts, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "full"])
def test_the_file_alone_rebuilds_the_model(tmp_path: Path, head: str) -> None:
    spec = ModelSpec(
        head,
        ("a", "b", "c"),
        64,
        (0.1, 0.2, 0.3),
        (0.4, 0.5, 0.6),
        tta_margin=1.5,
        temperature=0.8,
        bias=(0.1, 0.2, -0.3),
    )
    model = build_model(head, 3, 64).eval()
    save_model(tmp_path / "model.safetensors", model.state_dict(), spec)
    loaded, found = load_model(tmp_path / "model.safetensors")
    assert found == spec
    assert not loaded.training
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded(images), model(images))


def test_a_file_from_before_the_second_look_has_none(tmp_path: Path) -> None:
    description = asdict(SPEC) | {"format": FORMAT}
    del description["tta_margin"]
    state = build_model("linear", 2, 64).state_dict()
    save_file(state, tmp_path / "old.safetensors", {"gender_classifier": json.dumps(description)})
    assert load_model(tmp_path / "old.safetensors")[1] == SPEC


def test_equal_models_are_equal_files(tmp_path: Path) -> None:
    state = build_model("linear", 2, 64).state_dict()
    save_model(tmp_path / "a", state, SPEC)
    save_model(tmp_path / "b", dict(reversed(state.items())), SPEC)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_damaged_model_files_are_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(path, build_model("linear", 2, 64).state_dict(), SPEC)
    whole = path.read_bytes()
    size = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + size])
    header["__metadata__"]["gender_classifier"] = header["__metadata__"]["gender_classifier"].replace("er/1", "er/9")
    newer = json.dumps(header).encode().ljust(size)
    cases = {
        b"": "not a whole safetensors file",
        whole[:1000]: "not a whole safetensors file",
        whole[:-1]: "not a whole safetensors file",
        b"\x80\x04" + whole: "not a whole safetensors file",
        struct.pack("<Q", len(newer)) + newer + whole[8 + size :]: "has format 'gender-classifier/9'",
    }
    for data, message in cases.items():
        path.write_bytes(data)
        with pytest.raises(ModelError, match=message) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="no description of a model"):
        load_model(tmp_path / "other.safetensors")
    save_model(tmp_path / "odd.safetensors", {"x": torch.zeros(1)}, SPEC)
    with pytest.raises(ModelError, match="do not fit its own description"):
        load_model(tmp_path / "odd.safetensors")


def load_initial_weights(model: nn.Module, weights: str, base_dir: Path) -> None:
    apply_weights(model, load_weights(weights, base_dir, "alexnet"), SPEC)


@pytest.mark.parametrize("head", ["linear", "full"])
def test_imagenet_weights_come_from_torch_hubs_cache(hub: Path, head: str) -> None:
    state = stand_in(hub)
    model = build_model(head, 2, 64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_initial_weights(model, "imagenet", hub.parent)
    last = "classifier" if head == "linear" else "classifier.6"
    for name, value in model.state_dict().items():
        expected = before[name] if name.startswith(f"{last}.") else state[name]
        assert torch.equal(value, expected), name


def test_without_network_and_cache_imagenet_says_where_to_put_the_file(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(ModelError, match=re.escape(str(hub))):
        load_initial_weights(build_model("linear", 2, 64), "imagenet", hub.parent)


def test_a_damaged_imagenet_cache_is_named(hub: Path) -> None:
    hub.parent.mkdir(parents=True)
    hub.write_bytes(b"not a torch file")
    with pytest.raises(ModelError, match="is damaged") as caught:
        load_initial_weights(build_model("linear", 2, 64), "imagenet", hub.parent)
    assert str(hub) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_from_a_path(tmp_path: Path) -> None:
    source = build_model("linear", 5, 64)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build_model("linear", 2, 64)
    load_initial_weights(model, "w.safetensors", tmp_path)
    assert torch.equal(model.features[0].weight, source.features[0].weight)


def test_shipped_weights_come_back_from_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "PRETRAINED_DIR", tmp_path)
    with pytest.raises(
        ModelError, match="model.safetensors: no such file; make it in a checkout with `make pretrained"
    ):
        load_weights("pretrained", tmp_path, "alexnet")
    source = build_model("linear", 2, 64).state_dict()
    halved = {name: value.half() for name, value in source.items()}
    save_model(tmp_path / "model.safetensors", halved, SPEC)
    model = build_model("linear", 2, 64)
    apply_weights(model, load_weights("pretrained", tmp_path, "alexnet"), SPEC)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32, name
        assert torch.equal(value, halved[name].float()), name


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = build_model("linear", 2, 64)
    with pytest.raises(ModelError, match="no such file"):
        load_initial_weights(model, "w.safetensors", tmp_path)
    with pytest.raises(ModelError, match="pickled files are not read"):
        load_initial_weights(model, "alexnet.pth", tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=re.escape("tensor `features.0.weight` is missing")):
        load_initial_weights(model, "w.safetensors", tmp_path)
    state = model.state_dict()
    state["features.0.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=re.escape("has shape (3, 3), the model needs (64, 3, 11, 11)")):
        load_initial_weights(model, "w.safetensors", tmp_path)


def test_mnasnet_is_loaded_from_plain_tensors() -> None:
    """Torchvision's own method refuses a state without the metadata of a pickled one."""
    torch.manual_seed(0)
    state = dict(build_model("linear", 2, 64, "mnasnet0_5").state_dict())
    loaded = copy.deepcopy(build_model("linear", 2, 64, "mnasnet0_5"))
    loaded.load_state_dict({key: value.clone() for key, value in state.items()})
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())

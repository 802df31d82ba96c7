"""Networks other than AlexNet go all the way: trained, resumed to the bit, exported, quantized, used and explained."""

import copy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import draw_pixels
from numpy.typing import NDArray
from test_training import PARAMS, easy
from torch import nn

from gender_classifier.data.dataset import DatasetInfo
from gender_classifier.evaluate.export import check_export, export_onnx
from gender_classifier.metrics.calibration import softmax
from gender_classifier.model.inference import compute_logits, normalize
from gender_classifier.model.model_file import ModelSpec, describe_network, load_model, save_model
from gender_classifier.model.network import find_last_layer
from gender_classifier.model.serving import can_export
from gender_classifier.model.weights import load_weights
from gender_classifier.predict.explain import build_occlusions, compute_drops
from gender_classifier.predict.predictor import Predictor
from gender_classifier.predict.quantization import quantize_onnx
from gender_classifier.train import session
from gender_classifier.train.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from gender_classifier.train.session import build_initial
from gender_classifier.train.trainer import Trainer

FAMILIES = {
    "resnet10": True,
    "squeezenet1_1": True,
    "mobilenet_v3_small": True,
    "shufflenet_v2_x0_5": True,
    "efficientnet_b0": True,
    "mnasnet0_5": True,
    "regnet_y_400mf": True,
    "googlenet": True,
    "densenet121": True,
    "convnext_tiny": False,
    "swin_t": False,
}
"""One network a family, and whether it can be exported with test-time augmentation.

AlexNet is what other test modules use. VGG (the same layers, 129 M parameters) and ViT (86 M) would take minutes.
"""

QUICK = ("resnet10",)

LOSSY = (
    "mobilenet_v3_small", "shufflenet_v2_x0_5", "efficientnet_b0", "mnasnet0_5", "regnet_y_400mf", "googlenet",
    "densenet121",
)  # fmt: skip
"""They lose more in int8 (BENCHMARKS.md), most by depthwise and grouped convolutions, and `quantize` says so."""

INFO = DatasetInfo(("female", "male"), 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "abc", {})
TRAIN, VAL = easy(17, 0), easy(6, 1)  # 17 images in batches of 8: BatchNorm needs the last one in the batch before
IMAGES = np.stack([draw_pixels(seed, 64, 64) for seed in range(96)])
CALIBRATION, OTHERS = IMAGES[:48], IMAGES[48:]


@dataclass(frozen=True)
class Trained:
    """A network after two epochs, and its files."""

    name: str
    trainer: Trainer
    model: nn.Module
    spec: ModelSpec
    exported: Path
    quantized: Path


def build_trainer(name: str) -> Trainer:
    model, spec = build_once(name)
    return Trainer(copy.deepcopy(model), spec, TRAIN, VAL, replace(PARAMS, network=name, batch_size=8))


@cache
def build_once(name: str) -> tuple[nn.Module, ModelSpec]:
    """Build a network. That it can be exported is taken for granted: it is exported below, and a second time takes long.

    That one cannot be exported with test-time augmentation is found out.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            session,
            "can_export",
            lambda model, spec: FAMILIES[name] or not spec.tta_margin or can_export(model, spec),
        )
        return build_initial(replace(PARAMS, network=name), INFO, load_weights("none", Path(), name))


def spread_logits(model: nn.Module, spec: ModelSpec) -> None:
    """Give a hardly trained network answers that differ, or float32 has no digits left for what there is to compare.

    BatchNorm gets the statistics of its input: after a few steps it would shrink it, layer by layer, to nothing. The
    last layer is scaled.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
    if norms:
        with torch.no_grad():
            model.train()(normalize(torch.from_numpy(IMAGES), spec))
        model.eval()
    gaps = np.diff(compute_logits(model, replace(spec, tta_margin=0.0), IMAGES), axis=1)
    with torch.no_grad():
        last = model.get_submodule(find_last_layer(model))
        if isinstance(last, nn.Linear):  # SqueezeNet's last layer has a ReLU behind it
            last.bias[0] += float(np.median(gaps))
        for parameter in last.parameters():
            parameter.div_(float(gaps.std()))


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    trainer = build_trainer(name)
    list(trainer.epochs())
    assert trainer.best is not None
    save_model(folder / "model.safetensors", trainer.best.state, trainer.spec)
    model, spec = load_model(folder / "model.safetensors")
    spread_logits(model, spec)
    export_onnx(folder / "model.onnx", model, spec, {})
    quantize_onnx(folder / "model.onnx", folder / "int8.onnx", CALIBRATION)
    return Trained(name, trainer, model, spec, folder / "model.onnx", folder / "int8.onnx")


def test_resuming_ends_in_equal_bits(trained: Trained, tmp_path: Path) -> None:
    first, second = build_trainer(trained.name), build_trainer(trained.name)
    next(first.epochs())
    save_checkpoint(tmp_path / "checkpoint.safetensors", Checkpoint(*first.state_dict()))
    found = load_checkpoint(tmp_path / "checkpoint.safetensors")
    assert found is not None
    second.load_state_dict(found.tensors, found.facts)
    assert [*first.records, *second.epochs()] == trained.trainer.records
    assert second.best is not None
    assert trained.trainer.best is not None
    pairs = [
        (second.best.state, trained.trainer.best.state),
        (second.model.state_dict(), trained.trainer.model.state_dict()),
        (second.averaged.state_dict(), trained.trainer.averaged.state_dict()),
    ]
    for state, expected in pairs:
        assert state.keys() == expected.keys()
        assert all(torch.equal(state[key], expected[key]) for key in expected)


def test_the_exported_file_gives_torchs_probabilities_and_names_the_network(trained: Trained) -> None:
    assert bool(trained.spec.tta_margin) == FAMILIES[trained.name]
    expected = softmax(compute_logits(trained.model, trained.spec, OTHERS))
    assert check_export(trained.exported, OTHERS, expected) < 1e-4
    for path in (trained.exported, trained.quantized):
        assert Predictor(path).metadata["network"] == describe_network(trained.spec)


def test_the_int8_file_stores_each_weight_once_and_in_seven_bits(trained: Trained) -> None:
    # A file of a few hundred kB is half graph.
    assert trained.quantized.stat().st_size < 0.35 * trained.exported.stat().st_size + 300_000
    graph = onnx.load(trained.quantized).graph
    assert not any(node.op_type == "BatchNormalization" for node in graph.node)
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_from = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    factors = [node.input[1] for node in graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    assert not [name for name in factors if name in tensors], "not quantized"
    layers = [made_from[name] for name in factors if made_from.get(name) in tensors]  # attention multiplies activations
    weights = set(layers)
    for name in weights:
        assert tensors[name].dtype == np.int8, name
        assert np.abs(tensors[name].astype(int)).max() <= 64, name
    passes = 1 + FAMILIES[trained.name]
    assert len(layers) == passes * len(weights)
    assert len({tensors[name].tobytes() for name in weights}) == len(weights)


def test_the_int8_file_predicts_and_explains_as_the_exported_one(trained: Trained) -> None:
    original, variant = Predictor(trained.exported), Predictor(trained.quantized)
    odds = [np.diff(np.log(predictor.compute_probs(OTHERS)), axis=1)[:, 0] for predictor in (original, variant)]
    assert odds[0].std() > 0.3
    assert np.isfinite(odds[1]).all()
    assert trained.name in LOSSY or np.corrcoef(odds)[0, 1] > 0.95

    def explain(predictor: Predictor) -> NDArray[np.float32]:
        return compute_drops(predictor.compute_probs(build_occlusions(OTHERS[0])), 0)

    assert np.ptp(explain(original)) > 0
    if trained.name not in LOSSY:
        np.testing.assert_allclose(explain(variant), explain(original), atol=0.1)

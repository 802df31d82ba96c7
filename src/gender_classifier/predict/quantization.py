"""Static quantization of the exported model: 8-bit activations and 7-bit weights, calibrated on images.

The file gives the same results on every processor. On x86 without VNNI, onnxruntime multiplies unsigned activations by
signed weights with VPMADDUBSW, which adds two products into 16 bits and saturates: 2 * 255 * 127 exceeds 32,767. With
7-bit weights it cannot: 2 * 255 * 64 = 32,640. Unsigned weights (U8U8) avoid it too, with a kernel that first widens
both to 16 bits: equally accurate, but slower (BENCHMARKS.md). Signed activations are computed as unsigned ones on x86.
Sources: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "When and why do I need to try
U8U8?", and onnxruntime/core/mlas/lib/platform.cpp, which picks the kernels.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from gender_classifier.common.files import write_bytes
from gender_classifier.common.logs import quiet_loggers
from gender_classifier.model.metadata import THRESHOLD_KEY, UNFAMILIARITY
from gender_classifier.model.threshold import fit_threshold

_BATCH_SIZE = 32
_LEAST_SHARE = "least_share"
_QUANTIZED = ["Conv", "Relu", "MaxPool", "Gemm", "MatMul"]  # normalization, bias, temperature and softmax stay float32


def quantize_onnx(source: Path, target: Path, images: NDArray[np.uint8]) -> None:
    """Write an int8 variant of ``source`` with the same input, output and metadata, plus ``precision`` ``int8``.

    Weights are quantized to 7 bits per output channel, activations to 8 bits by their range on ``images``. For the
    pass of test-time augmentation, all of ``images`` count, since it may apply to few or none of them otherwise. What
    only ``unfamiliarity`` is computed with stays float32, and its threshold is fitted again, to ``images``.

    Args:
        source: float32 model written by ``evaluate``.
        target: file to write.
        images: uint8 (N, S, S, 3), similar to those to be classified; about 200 are enough.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_loggers("root"),  # onnxruntime logs and prints advice that is followed here
        contextlib.redirect_stdout(io.StringIO()),
    ):
        prepared, quantized = Path(folder) / "prepared.onnx", Path(folder) / "quantized.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        proto = onnx.load(str(prepared))
        _merge_equal_tensors(proto.graph)
        least_share = _augment_all(proto)
        beside = _name_nodes_beside(proto.graph, "probs")
        onnx.save(proto, str(prepared))
        quantize_static(
            str(prepared),
            str(quantized),
            _Calibration(images),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,  # 7 bits
            op_types_to_quantize=_QUANTIZED,
            nodes_to_exclude=beside,
        )
        proto = onnx.load(str(quantized))
    if least_share is not None:
        _find(proto.graph.initializer, _LEAST_SHARE).CopyFrom(least_share)
    _merge_equal_tensors(proto.graph)
    entries = {entry.key: entry.value for entry in onnx.load(str(source)).metadata_props} | {"precision": "int8"}
    if THRESHOLD_KEY in entries:
        entries[THRESHOLD_KEY] = repr(_fit_threshold(proto, images))
    onnx.helper.set_model_props(proto, dict(sorted(entries.items())))
    write_bytes(target, proto.SerializeToString(deterministic=True))


def _augment_all(proto: onnx.ModelProto) -> onnx.TensorProto | None:
    """Apply test-time augmentation to every image; return the constant that undoes it, or None if the model has none.

    An image is augmented if its augmentation weight is greater than 0. Networks may compare numbers too, but only this
    comparison selects rows.
    """
    selected = {node.input[0] for node in proto.graph.node if node.op_type == "NonZero"}
    comparisons = [node for node in proto.graph.node if node.op_type == "Greater" and node.output[0] in selected]
    if not comparisons:
        return None
    (comparison,) = comparisons
    before = _find(proto.graph.initializer, comparison.input[1])
    value = onnx.numpy_helper.to_array(before)
    comparison.input[1] = _LEAST_SHARE  # a new constant, as other nodes may share the 0
    if not any(before.name in node.input for node in proto.graph.node):
        proto.graph.initializer.remove(before)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.full_like(value, -np.inf), _LEAST_SHARE))
    return onnx.numpy_helper.from_array(value, _LEAST_SHARE)


def _name_nodes_beside(graph: onnx.GraphProto, output: str) -> list[str]:
    """Give every node a name, and return those of the nodes that ``output`` does not depend on."""
    needed, beside = {output}, []
    for place, node in reversed(list(enumerate(graph.node))):  # a graph's nodes are sorted
        node.name = node.name or f"node_{place}"
        if needed.isdisjoint(node.output):
            beside.append(node.name)
        else:
            needed.update(node.input)
    return beside


def _fit_threshold(proto: onnx.ModelProto, images: NDArray[np.uint8]) -> float:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    starts = range(0, len(images), _BATCH_SIZE)
    parts = [session.run([UNFAMILIARITY], {"images": images[start : start + _BATCH_SIZE]})[0] for start in starts]
    return fit_threshold(np.concatenate(parts))


def _merge_equal_tensors(graph: onnx.GraphProto) -> None:
    """Store equal constants once, under the name of the first.

    Both passes of test-time augmentation run the same network. onnxruntime's scales and zero points are often equal.
    """
    kept: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in list(graph.initializer):
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.ClearField("name")
        first = kept.setdefault(content.SerializeToString(deterministic=True), tensor.name)
        if first != tensor.name:
            renamed[tensor.name] = first
            graph.initializer.remove(tensor)
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _find(tensors: Iterable[onnx.TensorProto], name: str) -> onnx.TensorProto:
    return next(tensor for tensor in tensors if tensor.name == name)


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """One pass over the calibration images, in batches."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        starts = range(0, len(images), _BATCH_SIZE)
        self._batches = ({"images": images[start : start + _BATCH_SIZE]} for start in starts)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)

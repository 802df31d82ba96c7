"""The network as it is used: uint8 images in, probabilities out, in one graph that can be exported."""

import copy
import logging
import warnings
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.fx.experimental.optimization import fuse

from gender_classifier.common.logs import quiet_loggers
from gender_classifier.model.inference import infer, normalize
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import has_batch_norm
from gender_classifier.model.unfamiliarity import Unfamiliarity

if TYPE_CHECKING:
    import onnx

_OPSET = 18


class ServedModel(nn.Module):
    """Normalisation, network, bias, test-time augmentation, temperature and softmax; ``unfamiliarity`` beside them."""

    def __init__(self, model: nn.Module, spec: ModelSpec, unfamiliarity: Unfamiliarity | None = None) -> None:
        """Take a network of ``build_model`` as it is; see :func:`fold_batch_norm`."""
        super().__init__()
        self.model, self.spec, self.unfamiliarity = model, spec, unfamiliarity

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map uint8 (N, S, S, 3) RGB to float32 (N, num_classes), and float32 (N,) if there is ``unfamiliarity``."""
        normalized = normalize(images, self.spec)
        if self.unfamiliarity is None:
            return (self._compute_probs(infer(self.model, normalized, self.spec)),)
        logits, unfamiliarity = self.unfamiliarity.run(self.model, normalized, self.spec)
        return self._compute_probs(logits), unfamiliarity

    def _compute_probs(self, logits: Tensor) -> Tensor:
        return torch.softmax(logits / self.spec.temperature, dim=1)


class _ChannelAffine(nn.Module):
    """A BatchNorm of fixed statistics: one multiplication and one addition a channel."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        assert norm.running_var is not None
        assert norm.running_mean is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        self.scale = nn.Parameter(scale.view(1, -1, 1, 1), requires_grad=False)
        self.shift = nn.Parameter((norm.bias - norm.running_mean * scale).view(1, -1, 1, 1), requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift


def fold_batch_norm(model: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode without BatchNorm: folded into the convolution before it where there is one.

    torch.export cannot run BatchNorm on the open number of images of test-time augmentation; folded, the network is
    quicker as well. A network without BatchNorm is returned as it is.
    """
    if not has_batch_norm(model):
        return model
    folded = copy.deepcopy(model).eval()
    with suppress(torch.fx.proxy.TraceError, TypeError):  # control flow that torch.fx cannot follow
        folded = fuse(folded)
    for parent in list(folded.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, _ChannelAffine(child))
    return folded


def export_graph(
    model: nn.Module, spec: ModelSpec, unfamiliarity: Unfamiliarity | None = None, *, optimize: bool = True
) -> "onnx.ModelProto":
    """Return the ONNX graph that maps ``images``, uint8 (N, S, S, 3), to ``probs``, float32 (N, num_classes), any N.

    With ``unfamiliarity`` it has a second output of that name, float32 (N,).

    Args:
        model: a network of ``build_model`` on the CPU.
        spec: its image size, normalisation, bias, test-time augmentation and temperature.
        unfamiliarity: fitted to the same network.
        optimize: False leaves the graph as it is translated, which takes less time: for a trial.
    """
    served = ServedModel(fold_batch_norm(model), spec, unfamiliarity).eval()
    example = torch.zeros(2, spec.image_size, spec.image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(), quiet_loggers("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        # torch.onnx itself would try other ways as well, which do not help, and tell of a failure three times as late.
        exported = torch.export.export(
            served, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False
        )
        program = torch.onnx.export(
            exported,
            input_names=["images"],
            output_names=["probs", "unfamiliarity"][: 1 if unfamiliarity is None else 2],
            opset_version=_OPSET,
            dynamo=True,
            optimize=optimize,
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def can_export(model: nn.Module, spec: ModelSpec) -> bool:
    """Return whether the network can be exported to ONNX as ``spec`` says."""
    # torch prints the whole graph of what it cannot export.
    with quiet_loggers("torch", level=logging.CRITICAL), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        try:
            export_graph(copy.deepcopy(model).cpu(), spec, optimize=False)
        except ImportError:  # without onnxscript, as where only training runs, nobody can tell
            return True
        except Exception:  # torch raises what its many parts raise
            return False
    return True

"""How far images are from those that a network was trained on: the distance of their features from a Gaussian.

The Mahalanobis distance from one Gaussian of all classes (Kamoi & Kobayashi, "Why is the Mahalanobis distance effective
for anomaly detection?", 2020), at two depths (Lee et al., "A simple unified framework for detecting out-of-distribution
samples and adversarial attacks", 2018). The covariance is that of probabilistic PCA (Tipping & Bishop 1999): some
principal components, and one variance for the rest, so that wide features cost little. BENCHMARKS.md compares
alternatives.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.nn import functional as F

from gender_classifier.errors import ModelError
from gender_classifier.model.features import collect_features, compute_features, find_feature_layers
from gender_classifier.model.inference import infer
from gender_classifier.model.model_file import ModelSpec, read_unfamiliarity
from gender_classifier.model.threshold import fit_threshold

_MAX_COMPONENTS = 64
_MAX_NUMBERS = 15_000  # in the components of one Gaussian: 60 kB, or twice that if the exporter transposes a copy
_MAX_IMAGES = 8192  # of train; more change the threshold by less than val's size does
_BLOCK = 8192  # images whose features are in memory at once; as many batches give the same bits
_WIDE = 1024  # features; above, Lanczos iterations find the components in a fraction of the time
_LEAST_VARIANCE = 1e-6  # of the mean variance, for features that hardly vary
_CONSTANT = 1e-12  # variance; below, features differ by rounding alone


class Gaussian(nn.Module):
    """A Gaussian of D features: ``mean`` (D,), K ``components`` (D, K) with ``deviations`` (K,), and a ``rest``."""

    mean: Tensor
    components: Tensor
    deviations: Tensor
    rest: Tensor

    def __init__(self, width: int, count: int) -> None:
        """Make a Gaussian of ``width`` features and ``count`` components, to be filled."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("components", torch.zeros(width, count))
        self.register_buffer("deviations", torch.ones(count))
        self.register_buffer("rest", torch.ones(()))

    def forward(self, features: Tensor) -> Tensor:
        """Map features (N, D) to their root mean squared deviation (N,): around 1 for images like the fitted ones."""
        centered = features - self.mean
        scores = centered @ self.components
        # Subtracted from the vectors, not from the squares, which would cancel.
        rest = centered - F.linear(scores, self.components)
        squared = (scores / self.deviations).square().sum(1) + (rest / self.rest).square().sum(1)
        return (squared / features.shape[1]).sqrt()


class Unfamiliarity(nn.Module):
    """Gaussians of the features at ``layers``.

    An image is as unfamiliar as the most unusual of its features. Each distance is divided by its limit, the threshold
    that it would have alone, so 1 is about where familiar images end; ``threshold`` says exactly where.
    """

    limits: Tensor
    threshold: Tensor

    def __init__(self, layers: Sequence[str], shapes: Sequence[tuple[int, int]]) -> None:
        """Make Gaussians of (D, K) each, to be filled."""
        super().__init__()
        self.layers = tuple(layers)
        self.gaussians = nn.ModuleList(Gaussian(*shape) for shape in shapes)
        self.register_buffer("limits", torch.ones(len(layers)))
        self.register_buffer("threshold", torch.ones(()))

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map float (N, D) of each layer to float (N,)."""
        distances = [gaussian(part) for gaussian, part in zip(self.gaussians, features, strict=True)]
        return (torch.stack(distances, 1) / self.limits).amax(1)

    def run(self, model: nn.Module, images: Tensor, spec: ModelSpec) -> tuple[Tensor, Tensor]:
        """Run :func:`~gender_classifier.model.inference.infer`; return its logits and float (N,) of the first pass."""
        with collect_features(model, self.layers) as found:
            logits = infer(model, images, spec)
        return logits, self([passes[0] for passes in found])


def fit_unfamiliarity(
    model: nn.Module, spec: ModelSpec, train: NDArray[np.uint8], val: NDArray[np.uint8]
) -> Unfamiliarity:
    """Fit the Gaussians to images that the network was trained on, and limits and threshold to val.

    Args:
        model: a trained network of ``build_model``, on any device.
        spec: its image size and normalisation.
        train: uint8 (N, S, S, 3), at most 8,192 of which are used, evenly spread.
        val: uint8 (M, S, S, 3).

    Returns:
        On the CPU. Equal input gives equal numbers.
    """
    layers = find_feature_layers(model, spec.image_size)
    step = -(-len(train) // _MAX_IMAGES)
    fitted = compute_features(model, spec, train[::step], layers)
    gaussians = [fit_gaussian(features) for features in fitted]
    unfamiliarity = Unfamiliarity(layers, [(len(found.mean), len(found.deviations)) for found in gaussians])
    unfamiliarity.gaussians = nn.ModuleList(gaussians)
    held_out = compute_features(model, spec, val, layers)
    limits = [fit_threshold(gaussian(features).numpy()) for gaussian, features in zip(gaussians, held_out, strict=True)]
    unfamiliarity.limits.copy_(torch.tensor(limits).clamp(min=torch.finfo(torch.float32).tiny))
    unfamiliarity.threshold.fill_(fit_threshold(unfamiliarity(held_out).numpy()))
    return unfamiliarity


def fit_gaussian(features: Tensor) -> Gaussian:
    """Fit probabilistic PCA to float (N, D)."""
    values = features.double().numpy()
    width = values.shape[1]
    count = max(min(_MAX_COMPONENTS, width - 1, _MAX_NUMBERS // width), 1)
    centered = values - values.mean(0)
    total = float(np.vdot(centered, centered)) / len(values)
    if width <= _WIDE:
        covariance = centered.T @ centered / len(values)
        variances, components = eigh(covariance, subset_by_index=(width - count, width - 1))
    elif total > _CONSTANT * width:  # AlexNet's full head and VGG: 4,096 columns, of which few components are kept
        covariance = LinearOperator((width, width), lambda v: centered.T @ (centered @ v) / len(values), dtype=float)
        # From a random start: a vector of ones has no part in what varies if the features sum to a constant.
        variances, components = eigsh(covariance, k=count, which="LA", rng=0)
    else:  # Lanczos iterations would end in an error
        variances, components = np.zeros(count), np.eye(width, count)
    least = max(_LEAST_VARIANCE * total / width, _CONSTANT)
    rest = max((total - float(variances.sum())) / max(width - count, 1), least)
    gaussian = Gaussian(width, count)
    parts = {
        "mean": values.mean(0),
        "components": components,
        "deviations": np.sqrt(np.maximum(variances, least)),
        "rest": np.sqrt(rest),
    }
    gaussian.load_state_dict({name: torch.tensor(value, dtype=torch.float32) for name, value in parts.items()})
    return gaussian


def load_unfamiliarity(path: Path, model: nn.Module, spec: ModelSpec) -> Unfamiliarity | None:
    """Read what ``pack_model`` wrote beside the weights; None from a file without it, such as one of older versions.

    Args:
        path: of the model file.
        model: the network in it.
        spec: its image size.

    Raises:
        ModelError: the file is missing or damaged, or its numbers do not belong to this network.
    """
    state = read_unfamiliarity(path)
    if not state:
        return None
    layers = find_feature_layers(model, spec.image_size)
    widths = [_find_width(model.get_submodule(name)) for name in layers]
    try:
        shapes = [(width, state[f"gaussians.{place}.deviations"].numel()) for place, width in enumerate(widths)]
        unfamiliarity = Unfamiliarity(layers, shapes)
        unfamiliarity.load_state_dict(state)
    except (KeyError, RuntimeError):
        raise ModelError(f"{path}: its numbers for `unfamiliar` belong to another network; train it again") from None
    scales = [value for name, value in state.items() if name.endswith(("deviations", "rest", "limits", "threshold"))]
    if not all(value.isfinite().all() for value in state.values()) or not all((value > 0).all() for value in scales):
        raise ModelError(f"{path}: its numbers for `unfamiliar` are not finite, or no deviations; train it again")
    return unfamiliarity


@torch.no_grad()
def compute_unfamiliarity(
    model: nn.Module,
    spec: ModelSpec,
    unfamiliarity: Unfamiliarity,
    images: NDArray[np.uint8],
    *,
    on_batch: Callable[[int], object] = lambda _: None,
) -> NDArray[np.float32]:
    """Return float32 (N,) of uint8 (N, S, S, 3), N at least 1; tell ``on_batch`` the number of images of each."""
    blocks = (images[start : start + _BLOCK] for start in range(0, len(images), _BLOCK))
    scores = [
        unfamiliarity(compute_features(model, spec, block, unfamiliarity.layers, on_batch=on_batch)).numpy()
        for block in blocks
    ]
    return np.concatenate(scores)


def _find_width(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features

"""Compare scores for unfamiliar images: shares above a threshold that 3 % of val exceed, of test and of non-faces.

    python benchmarks/unfamiliar.py                    1 to 4 min on 2 cores, after `dvc repro train`

Reads the model file and the arrays of the workspace, writes nothing, and prints a table in Markdown.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from gender_classifier.common.paths import Layout
from gender_classifier.data.dataset import open_split
from gender_classifier.evaluate.nonfaces import draw_nonfaces
from gender_classifier.model.features import compute_features, find_feature_layers
from gender_classifier.model.model_file import load_model
from gender_classifier.model.threshold import fit_threshold

Floats = NDArray[np.float64]
Features = tuple[Floats, Floats, Floats]
"""Of the second layer with weights, of the last one, and the logits, (N, D) each."""

_TRAIN_IMAGES = 6000
_NEIGHBOURS, _BANK, _BANK_WIDTH = 10, 1000, 64


def fit_distance(values: Floats, means: Floats | None = None, labels: NDArray[np.int64] | None = None):  # type: ignore[no-untyped-def]
    """Return the squared Mahalanobis distance, per feature, from the nearest of ``means`` (one mean by default)."""
    centers = values.mean(0, keepdims=True) if means is None else means
    centered = values - (centers[labels] if means is not None else centers)
    covariance = centered.T @ centered / len(values)
    width = len(covariance)
    factor = np.linalg.cholesky(np.linalg.inv(covariance + 1e-6 * np.trace(covariance) / width * np.eye(width)))
    return lambda x: np.min([(((x - center) @ factor) ** 2).sum(1) for center in centers], axis=0) / width


def fit_neighbours(values: Floats) -> Callable[[Floats], Floats]:
    """Return the distance from the tenth nearest of 1,000 images in the 64 first principal components, whitened."""
    mean = values.mean(0)
    variances, axes = np.linalg.eigh(np.cov((values - mean).T))
    project = axes[:, -_BANK_WIDTH:] / np.sqrt(variances[-_BANK_WIDTH:])
    bank = (values[:: len(values) // _BANK] - mean) @ project

    def measure(x: Floats) -> Floats:
        places = (x - mean) @ project
        squares = (places**2).sum(1)[:, None] - 2 * places @ bank.T + (bank**2).sum(1)
        return np.partition(squares, _NEIGHBOURS, axis=1)[:, _NEIGHBOURS]

    return measure


def list_scores(
    train: Features, labels: NDArray[np.int64], val: Features
) -> Mapping[str, Callable[[Features], Floats]]:
    """Return the candidates: each maps the features of N images to scores (N,), high for unfamiliar ones."""
    second, last = fit_distance(train[0]), fit_distance(train[1])
    means = np.stack([train[1][labels == label].mean(0) for label in np.unique(labels)])
    by_class = fit_distance(train[1], means, labels)
    neighbours = fit_neighbours(train[1])
    scales = [values.std() for values in train]
    joint = fit_distance(np.concatenate([train[0] / scales[0], train[1] / scales[1]], axis=1))
    limits = fit_threshold(second(val[0])), fit_threshold(last(val[1]))
    return {
        "highest logit": lambda x: -x[2].max(1),
        "energy of the logits (Liu et al. 2020)": lambda x: -logsumexp(x[2], axis=1),
        "last: 10 nearest of 1,000 (Sun et al. 2022)": lambda x: neighbours(x[1]),
        "last: Gaussians by class (Lee et al. 2018)": lambda x: by_class(x[1]),
        "last: the same less one Gaussian (Ren et al. 2021)": lambda x: by_class(x[1]) - last(x[1]),
        "last: one Gaussian": lambda x: last(x[1]),
        "second: one Gaussian": lambda x: second(x[0]),
        "second and last: one Gaussian of both": lambda x: joint(
            np.concatenate([x[0] / scales[0], x[1] / scales[1]], axis=1)
        ),
        "second and last: sum of distances": lambda x: second(x[0]) / limits[0] + last(x[1]) / limits[1],
        "second and last: the greater distance": lambda x: np.maximum(second(x[0]) / limits[0], last(x[1]) / limits[1]),
    }


def main() -> None:
    """Print the table."""
    layout = Layout(Path.cwd())
    model, spec = load_model(layout.model_path)
    layers = find_feature_layers(model, spec.image_size)
    head = model.get_submodule(layers[1])

    def read(images: NDArray[np.uint8]) -> Features:
        second, last = compute_features(model, spec, images, layers)
        return second.double().numpy(), last.double().numpy(), head(last).detach().double().numpy()

    splits = {name: open_split(layout.images_path(name), layout.labels_path(name)) for name in ("train", "val", "test")}
    step = max(len(splits["train"].images) // _TRAIN_IMAGES, 1)
    train, val, test = read(splits["train"].images[::step]), *(read(splits[name].images) for name in ("val", "test"))
    nonfaces = {name: read(images) for name, images in draw_nonfaces(spec.image_size).items()}
    print(f"| score | test | {' | '.join(nonfaces)} | all non-faces |")
    print("|---|" + "---|" * (len(nonfaces) + 2))
    for name, score in list_scores(train, np.asarray(splits["train"].labels[::step]), val).items():
        threshold = fit_threshold(score(val))
        shares = [float((score(features) > threshold).mean()) for features in (test, *nonfaces.values())]
        cells = [f"{share:.1%}" for share in (*shares, float(np.mean(shares[1:])))]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

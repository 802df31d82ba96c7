"""Accuracy on corrupted images: one table, and its means."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gender_classifier.metrics.corruptions import CORRUPTIONS, FRAMING, OCCLUSION, ROBUST, Pixels, corrupt
from gender_classifier.metrics.scores import wilson_interval


@dataclass(frozen=True)
class RobustnessRow:
    """Accuracy on ``n`` corrupted images, with its 95 % interval.

    ``strength`` is 1 to 3, ``setting`` says what that is, ``drop`` what it costs. ``group`` is the corruption's, an
    empty text for the clean images.
    """

    corruption: str
    strength: int
    setting: str
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    drop: float
    group: str = ""


def measure_robustness(
    predict: Callable[[Pixels], NDArray[np.floating]],
    images: Pixels,
    labels: NDArray[np.int64],
    clean: NDArray[np.floating],
    *,
    on_images: Callable[[int], object] = lambda _: None,
) -> Iterator[RobustnessRow]:
    """Yield a row for the clean images, then one for each corruption and strength.

    Args:
        predict: uint8 (N, S, S, 3) to logits or probabilities (N, C).
        images: uint8 (N, S, S, 3).
        labels: int (N,).
        clean: ``predict(images)``, which the caller has already.
        on_images: told the number of images after each row.
    """
    total = len(labels)

    def score(name: str, strength: int, setting: str, group: str, preds: NDArray[np.floating]) -> RobustnessRow:
        hits = int((preds.argmax(axis=1) == labels).sum())
        drop = (clean_hits - hits) / total
        return RobustnessRow(name, strength, setting, total, hits / total, *wilson_interval(hits, total), drop, group)

    clean_hits = int((clean.argmax(axis=1) == labels).sum())
    yield score("none", 0, "", "", clean)
    for name, corruption in CORRUPTIONS.items():
        for strength, setting in enumerate(corruption.settings, 1):
            corrupted = predict(corrupt(images, name, strength))
            on_images(total)
            yield score(name, strength, corruption.wording.format(setting), corruption.group, corrupted)


def count_passes() -> int:
    """Return how often :func:`measure_robustness` predicts all images."""
    return sum(len(corruption.settings) for corruption in CORRUPTIONS.values())


def summarize(rows: Sequence[RobustnessRow]) -> dict[str, float]:
    """Return the mean accuracies of a table, each corruption with the same weight, whatever its number of strengths.

    ``robust_accuracy`` is the mean over :data:`~gender_classifier.metrics.corruptions.ROBUST`, ``framing_accuracy``
    and ``occlusion_accuracy`` are those over all corruptions of the group. Without rows there is none.
    """
    by_name: dict[str, list[float]] = {}
    for row in rows:
        by_name.setdefault(row.corruption, []).append(row.accuracy)
    chosen: Mapping[str, Sequence[str]] = {
        "robust_accuracy": ROBUST,
        "framing_accuracy": [name for name, corruption in CORRUPTIONS.items() if corruption.group == FRAMING],
        "occlusion_accuracy": [name for name, corruption in CORRUPTIONS.items() if corruption.group == OCCLUSION],
    }
    if not rows:
        return {}
    return {key: float(np.mean([np.mean(by_name[name]) for name in names])) for key, names in chosen.items()}

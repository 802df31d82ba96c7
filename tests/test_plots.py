"""Pictures hold the data they are given, and the same data give the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_pixels
from matplotlib.figure import Figure
from PIL import Image

from gender_classifier import plots
from gender_classifier.evaluation import reliability_points, roc_points

COUNTS = {split: {"female": {"ok": 1234, "rejected": 3}, "male": {"ok": 1200, "rejected": 0}}
          for split in ("Training", "Validation")}  # fmt: skip
CONFUSION = np.array([[90, 10], [1, 99]])
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 2, 400)
PROBS = np.clip(RNG.normal(0.3 + 0.4 * LABELS, 0.2), 0.001, 0.999)
BOTH = np.stack([1 - PROBS, PROBS], axis=1)


def records(count: int) -> list[dict[str, float]]:
    keys = ("train_loss", "val_loss", "train_accuracy", "val_accuracy")
    return [{"epoch": n, **{key: 1 / (n + k) for k, key in enumerate(keys, 1)}} for n in range(1, count + 1)]


CORRUPTED = [
    {"corruption": "none", "strength": 0, "setting": "", "accuracy": 0.95, "drop": 0.0},
    *(
        {"corruption": name, "strength": one, "setting": f"{one} px", "accuracy": 0.95 - one / 10, "drop": one / 10}
        for name in ("blurred", "darker")
        for one in (1, 2, 3)
    ),
]

FIGURES: dict[str, Callable[[], Figure]] = {
    "class_balance": lambda: plots.class_balance(COUNTS),
    "image_sizes": lambda: plots.image_sizes([60, 80, 80, 100], [80, 100, 101, 140]),
    "one size": lambda: plots.image_sizes([80, 80], [100, 100]),
    "no sizes": lambda: plots.image_sizes([], []),
    "split_balance": lambda: plots.split_balance({"train": {"female": 9, "male": 8}, "test": {"female": 2, "male": 3}}),
    "curves": lambda: plots.curves(records(20), 17),
    "robustness": lambda: plots.robustness(CORRUPTED),
    "robust": lambda: plots.robustness([{**row, "accuracy": 1.0} for row in CORRUPTED]),
    "one epoch": lambda: plots.curves(records(1), 1),
    "confusion": lambda: plots.confusion_matrix(CONFUSION, ("female", "male"), "Test set"),
    "roc": lambda: plots.roc_curve(roc_points(PROBS, LABELS), 0.9123, "male"),
    "reliability": lambda: plots.reliability(reliability_points(BOTH, LABELS), 0.0321),
    "sheet": lambda: plots.contact_sheet(
        [draw_pixels(1), None, draw_pixels(2, 300, 40)], ["a", "b\nempty", "c"], "Three"
    ),
    "empty sheet": lambda: plots.contact_sheet([], [], "0 of 0 rejected images"),
}


def texts(figure: Figure) -> set[str]:
    found = {figure.get_suptitle()}
    for axes in figure.axes:
        found |= {axes.get_title(), axes.get_xlabel(), axes.get_ylabel()}
        found |= {text.get_text() for text in axes.texts}
        legend = axes.get_legend()
        found |= {text.get_text() for text in legend.get_texts()} if legend else set()
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    for path in (tmp_path / "one.png", tmp_path / "two.png"):
        plots.save_figure(FIGURES[name](), path)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG"
        assert min(image.size) >= 250
        assert np.asarray(image.convert("L")).std() > 3
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class_balance", {"images", "ok", "rejected", "1,234\n(3 rejected)", "1,200"}),
        ("image_sizes", {"width (px)", "height (px)", "Sizes of 4 decoded images", "median 80 × 100"}),
        ("curves", {"epoch", "cross entropy per image (nats)", "accuracy", "validation", "kept: epoch 17"}),
        ("confusion", {"actual", "predicted", "90", "10", "1", "99", "90.0%", "1.0%", "Test set: 200 images"}),
        ("roc", {"false positive rate", "true positive rate", "area 0.9123", "ROC, positive class: male"}),
        ("reliability", {"accuracy of the bin", "Reliability, expected calibration error 3.21%"}),
        ("sheet", {"Three", "cannot be\ndecoded", "b\nempty"}),
        ("empty sheet", {"none", "0 of 0 rejected images"}),
    ],
)
def test_figures_say_what_they_show(name: str, expected: set[str]) -> None:
    assert expected <= texts(FIGURES[name]())


def test_curves_draw_the_records() -> None:
    loss, accuracy = FIGURES["curves"]().axes
    assert [line.get_label() for line in loss.lines[:2]] == ["train (running, augmented)", "validation"]
    np.testing.assert_allclose(loss.lines[1].get_ydata(), [row["val_loss"] for row in records(20)])
    np.testing.assert_allclose(accuracy.lines[0].get_ydata(), [row["train_accuracy"] for row in records(20)])


def test_confusion_text_is_legible_on_its_cell() -> None:
    for axes in FIGURES["confusion"]().axes:
        for text in axes.texts:
            column, row = (round(place) for place in text.get_position())
            share = CONFUSION[row, column] / CONFUSION[row].sum()
            assert text.get_color() == ("white" if share > 0.5 else "black")


def test_a_corruptions_accuracies_are_written_beside_its_bars() -> None:
    axes = plots.robustness(CORRUPTED).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["blurred", "darker"]
    texts = [text.get_text() for text in axes.texts]
    assert "0.850  1 px" in texts
    assert "clean 0.950" in texts
    assert max(axes.get_xticks()) <= 1

"""Images hold the data they are given, and the same data give the same bytes."""

import ast
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from checkout import ROOT
from conftest import draw_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axis import Axis
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from PIL import Image

from gender_classifier.common.figures import (
    confusion_matrix,
    contact_sheet,
    format_percent_tick,
    format_share,
    one_line,
    own_style,
    save_figure,
)
from gender_classifier.evaluate.figures import attribute_table, reliability, robustness, roc_curve
from gender_classifier.metrics.calibration import ReliabilityBin, reliability_points
from gender_classifier.metrics.curves import operating_point, roc_points
from gender_classifier.metrics.scores import wilson_interval
from gender_classifier.monitor.figures import Panel, compare_histograms
from gender_classifier.preprocess.figures import split_balance
from gender_classifier.train.figures import curves
from gender_classifier.verify.figures import class_balance, image_sizes

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


def corrupted(count: int, *hits: int) -> list[dict[str, Any]]:
    """Return the table of two corruptions, three strengths each, after the clean images."""
    kinds = [("none", 0, ""), ("mask", 1, "occlusion")]
    kinds += [(name, strength, "light") for name in ("blurred", "darker") for strength in (1, 2, 3)]
    return [
        {"corruption": name, "strength": strength, "group": group, "setting": f"{strength} px", "n": count, "accuracy": right / count,
         **dict(zip(("accuracy_low", "accuracy_high"), wilson_interval(right, count), strict=True))}
        for (name, strength, group), right in zip(kinds, hits, strict=True)
    ]  # fmt: skip


CORRUPTED = corrupted(200, 190, 160, 170, 150, 130, 190, 199, 120)
ROC = roc_points(PROBS, LABELS)

PEOPLE = [
    {"attribute": name, "value": value, "n": 20, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95,
     "recalls": [(10, 0.9, 0.8, 0.95), (10, None, None, None)]}
    for name, value in (("all", ""), ("income", "$0_-$20k"), ("age", "20-29"))
]  # fmt: skip


def compared(categories: Sequence[str] = ("female", "male")) -> Figure:
    counts = {"train": np.array([4, 9]), "new": np.array([5, 2])}
    shares = {name: np.resize(found, len(categories)) for name, found in counts.items()}
    edges = np.array([0.0, 0.5, 1.0])
    panels = [
        Panel("brightness: stable", "mean level", edges, (), counts),
        Panel("class: drift", "predicted class", np.arange(len(categories) + 1.0), categories, shares),
    ]
    return compare_histograms(panels, "New images")


SIX = ("60+", "boy", "girl", "man", "someone with a long name", "woman")
OK = {"ok": 1234, "rejected": 5}

FIGURES: dict[str, Callable[[], Figure]] = {
    "class_balance": lambda: class_balance(COUNTS),
    "image_sizes": lambda: image_sizes([60, 80, 80, 100], [80, 100, 101, 140]),
    "one size": lambda: image_sizes([80, 80], [100, 100]),
    "no sizes": lambda: image_sizes([], []),
    "split_balance": lambda: split_balance({"train": {"female": 9, "male": 8}, "test": {"female": 2, "male": 3}}),
    "curves": lambda: curves(records(20), 17),
    "robustness": lambda: robustness(CORRUPTED, 0.948, 1234),
    "robust": lambda: robustness(corrupted(200, *[200] * 8), 1.0, 200),
    "one epoch": lambda: curves(records(1), 1),
    "confusion": lambda: confusion_matrix(CONFUSION, ("female", "male"), "Test set", (0.9012, 0.9678)),
    "roc": lambda: roc_curve({"male": ROC}, 0.9123, (0.03, 0.91)),
    "reliability": lambda: reliability(reliability_points(BOTH, LABELS), 0.0321, 2),
    "sheet": lambda: contact_sheet([draw_pixels(1), None, draw_pixels(2, 300, 40)], ["a", "b\nempty", "c"], "Three"),
    "attributes": lambda: attribute_table(PEOPLE, ("female", "male"), "Further set new"),
    "histograms": compared,
    "six class_balance": lambda: class_balance({split: dict.fromkeys(SIX, OK) for split in ("train", "test")}),
    "six split_balance": lambda: split_balance({split: dict.fromkeys(SIX, 1234) for split in ("train", "val", "test")}),
    "six confusion": lambda: confusion_matrix(
        np.full((6, 6), 7) + 90 * np.eye(6, dtype=int), SIX, "Test set", (0.6, 0.8)
    ),
    "six roc": lambda: roc_curve(dict.fromkeys(SIX, ROC), 0.9123, (0.03, 0.91)),
    "six attributes": lambda: attribute_table([{**row, "recalls": row["recalls"] * 3} for row in PEOPLE], SIX, "Set"),
    "six histograms": lambda: compared(SIX),
    "empty sheet": lambda: contact_sheet([], [], "0 of 0 rejected images"),
}


def texts(figure: Figure) -> set[str]:
    found = {figure.get_suptitle()}
    for axes in figure.axes:
        found |= {axes.get_title(), axes.get_xlabel(), axes.get_ylabel()}
        found |= {text.get_text() for text in axes.texts}
        legend = axes.get_legend()
        found |= {text.get_text() for text in legend.get_texts()} if legend else set()
    found |= {text.get_text() for legend in figure.legends for text in legend.get_texts()}
    return found


@cache
def draw(name: str) -> bytes:
    """Return the PNG of a figure under Matplotlib's default settings."""
    with TemporaryDirectory() as folder:
        save_figure(FIGURES[name](), Path(folder, "figure.png"))
        return Path(folder, "figure.png").read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_and_the_same_each_time(name: str, tmp_path: Path) -> None:
    save_figure(FIGURES[name](), tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == draw(name)
    with Image.open(tmp_path / "one.png") as image:
        assert image.format == "PNG"
        assert min(image.size) >= 200
        assert np.asarray(image.convert("L")).std() > 3
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("class_balance", {"images", "ok", "rejected", "1,234\n(3 rejected)", "1,200"}),
        ("image_sizes", {"width (px)", "height (px)", "Sizes of 4 decoded images, median 80 × 100 px"}),
        ("curves", {"epoch", "cross entropy per image (nats)", "accuracy", "validation", "kept: epoch 17",
                    "Loss: 0.0526 on validation", "Accuracy: 4.8% on validation"}),
        ("confusion", {"actual", "predicted", "90", "10", "1", "99", "90.0%", "1.0%",
                       "Test set: accuracy 94.5% (95 % interval 90.1 to 96.8), 200 images"}),
        ("roc", {"false positive rate", "true positive rate", "ROC, positive class: male, area 0.9123",
                 "Upper left corner, enlarged", "likeliest class: 91.0% found, 3.0% false alarms"}),
        ("reliability", {"accuracy of the bin", "Reliability, expected calibration error 3.21% (95 % intervals)"}),
        ("robustness", {"Accuracy on the test set, corrupted: 200 of its 1,234 images (95 % intervals)",
                        "the same images, clean: 95.0%", "whole test set, clean: 94.8%"}),
        ("robust", {"Accuracy on the test set, corrupted: all 200 images (95 % intervals)",
                    "the same images, clean: 100.0%"}),
        ("sheet", {"Three", "cannot be\ndecoded", "b\nempty"}),
        ("empty sheet", {"none", "0 of 0 rejected images"}),
    ],
)  # fmt: skip
def test_figures_say_what_they_show(name: str, expected: set[str]) -> None:
    assert expected <= texts(FIGURES[name]())


@pytest.mark.parametrize(
    ("build", "classes"),
    [
        (lambda names: confusion_matrix(np.eye(len(names), dtype=int), names, "Test set", (0.9, 1)), 2),
        (lambda names: confusion_matrix(np.eye(len(names), dtype=int), names, "Test set", (0.9, 1)), 3),
        (lambda names: class_balance({"train": dict.fromkeys(names, OK), "test": dict.fromkeys(names, OK)}), 3),
        (compared, 3),
        (compared, 6),
    ],
)
@pytest.mark.parametrize("name", ["male", "a longer name {}"])
def test_names_of_classes_do_not_overlap(build: Callable[[list[str]], Figure], classes: int, name: str) -> None:
    with own_style():
        figure = build([name.format(number) for number in range(classes)])
        figure.draw_without_rendering()
        for axes in figure.axes:
            ticks = [tick for tick in axes.get_xticklabels() if name[:4] in tick.get_text()]
            if not any(tick.get_rotation() for tick in ticks):
                boxes = [tick.get_window_extent() for tick in ticks]
                assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


@pytest.mark.parametrize("name", ["six attributes", "six roc", "six histograms", "attributes"])
def test_legends_are_inside_the_figure(name: str) -> None:
    with own_style():
        figure = FIGURES[name]()
        figure.draw_without_rendering()
        legends = [*figure.legends, *(legend for axes in figure.axes if (legend := axes.get_legend()))]
        assert legends
        for legend in legends:
            box = legend.get_window_extent()
            assert (box.x0 >= 0, box.y0 >= 0, box.x1 <= figure.bbox.x1, box.y1 <= figure.bbox.y1) == (True,) * 4


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


def test_a_corruptions_accuracies_are_points_with_their_intervals() -> None:
    panels = FIGURES["robustness"]().axes
    assert [axes.get_title(loc="left") for axes in panels] == ["occlusion", "light"]
    for axes, rows in zip(panels, (CORRUPTED[1:2], CORRUPTED[2:]), strict=True):
        assert [label.get_text() for label in axes.get_yticklabels()] == list(
            dict.fromkeys(str(row["corruption"]) for row in rows)
        )
        points = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
        assert [float(point.lines[0].get_xdata()[0]) for point in points] == [row["accuracy"] for row in rows]
        for point, row in zip(points, rows, strict=True):
            (segment,) = point.lines[2][0].get_segments()
            np.testing.assert_allclose(segment[:, 0], [row["accuracy_low"], row["accuracy_high"]])
        low, high = axes.get_xlim()
        assert low < min(row["accuracy_low"] for row in CORRUPTED)
        assert max(row["accuracy_high"] for row in CORRUPTED) < high <= 1.005
    assert "85.0%  1 px" in [text.get_text() for text in panels[1].texts]
    assert [label.get_position()[1] for label in panels[1].get_yticklabels()] == [1, 4]  # in the middle of three each


def ticks(axis: Axis) -> list[str]:
    """Return the labels of the ticks in view."""
    low, high = sorted(axis.get_view_interval())
    return [tick.label1.get_text() for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]


@pytest.mark.parametrize("span", [(0.785, 0.908), (0.4912, 0.4934), (0.02, 0.99), (0.5, 0.5), (0.99995, 1.0)])
def test_percent_ticks_say_where_they_are(span: tuple[float, float]) -> None:
    """80, 82.5, 85, never 80, 82, 85; 49.1, 49.2, never 49, 49."""
    rows = [{"epoch": n, "train_loss": 1.0, "val_loss": 1.0, "train_accuracy": one, "val_accuracy": one}
            for n, one in enumerate(span, 1)]  # fmt: skip
    with own_style():
        figure = curves(rows, 1)
        figure.draw_without_rendering()
    axis = figure.axes[1].yaxis
    shown = [float(text.rstrip("%")) / 100 for text in ticks(axis)]
    assert len(set(shown)) >= 3
    np.testing.assert_allclose(np.diff(shown), np.diff(shown)[0], rtol=1e-6)
    low, high = axis.get_view_interval()
    np.testing.assert_allclose(shown, [loc for loc in axis.get_majorticklocs() if low <= loc <= high])


@pytest.mark.parametrize(("values", "middle"), [((0.492, 0.5), 0.496), ((0.992, 1.0), 0.975), ((0.0, 0.004), 0.025)])
def test_noise_in_an_accuracy_is_no_jump(values: tuple[float, float], middle: float) -> None:
    rows = [{"epoch": n, "train_loss": 1.0, "val_loss": 1.0, "train_accuracy": one, "val_accuracy": one}
            for n, one in enumerate(values, 1)]  # fmt: skip
    low, high = curves(rows, 1).axes[1].get_ylim()
    assert (low, high) == pytest.approx((middle - 0.0275, middle + 0.0275))
    assert low < min(values)
    assert max(values) < high


def test_no_rounded_share_is_none_or_all() -> None:
    shares = [0, 0.0001, 0.0004999, 0.0005, 0.5, 0.99949, 0.9996, 0.999999, 1]
    shown = ["0.0%", "<0.1%", "<0.1%", "0.1%", "50.0%", "99.9%", ">99.9%", ">99.9%", "100.0%"]
    assert [format_share(share) for share in shares] == shown
    assert [format_percent_tick(tick) for tick in (0, 0.55, 0.825, 0.4925, 1)] == [
        "0%",
        "55%",
        "82.5%",
        "49.25%",
        "100%",
    ]


@pytest.mark.parametrize(("operating", "side"), [((0.004, 0.995), 0.02), ((0.03, 0.91), 0.2), ((0.1, 0.99), 0.2)])
def test_a_roc_curves_corner_holds_the_operating_point(operating: tuple[float, float], side: float) -> None:
    whole, corner = roc_curve({"male": ROC}, 0.9, operating).axes
    assert (whole.get_xlim(), whole.get_ylim()) == ((0, 1), (0, 1))
    assert (corner.get_xlim(), corner.get_ylim()) == ((0, side), (1 - side, 1))
    for axes in (whole, corner):
        assert tuple(float(part[0]) for part in axes.lines[2].get_data()) == operating


def test_a_model_far_from_the_corner_has_the_whole_curve_alone() -> None:
    (whole,) = roc_curve({"male": ROC}, 0.9, (1.0, 1.0)).axes
    assert (whole.get_title(), whole.get_xlim()) == ("Whole curve", (0, 1))


def test_the_operating_point_is_that_of_the_predictions() -> None:
    assert operating_point(np.array([[96, 4], [10, 90]])) == (0.04, 0.9)
    assert operating_point(np.array([[8, 1, 1], [0, 9, 1], [3, 1, 16]])) == (7 / 80, 33 / 40)


def test_reliability_begins_at_the_lowest_probability_that_can_be_the_highest() -> None:
    for num_classes in (2, 4):
        upper, lower = reliability([ReliabilityBin(0.9, 0.8, 100, 0.8, 0.95)], 0.1, num_classes).axes
        assert (upper.get_xlim()[0], lower.get_xlim()[0]) == (1 / num_classes, 1 / num_classes)
        assert upper.get_ylim()[0] == pytest.approx(1 / num_classes - 0.03)
    poor = [ReliabilityBin(0.52, 0.25, 4, 0.4667, 0.5333), ReliabilityBin(0.99, 1.0, 30, 0.9333, 1.0)]
    upper = reliability(poor, 0.1, 2).axes[0]
    assert upper.get_ylim()[0] < wilson_interval(1, 4)[0]  # no interval out of sight
    (points,) = (one for one in upper.containers if isinstance(one, ErrorbarContainer))
    for segment, one in zip(points.lines[2][0].get_segments(), poor, strict=True):
        np.testing.assert_allclose(segment[:, 1], wilson_interval(round(one.accuracy * one.count), one.count))


def test_shares_of_a_comparison_end_at_100_percent() -> None:
    edges, counts = np.array([0.0, 1, 2]), {"val": np.array([50, 50]), "new": np.array([0, 40])}
    with own_style():
        axes = compare_histograms([Panel("class", "predicted", edges, ("female", "male"), counts)], "New").axes[0]
        axes.figure.draw_without_rendering()
    assert axes.get_ylim() == (0, 1)
    assert ticks(axes.yaxis)[-1] == "100%"


def test_bins_of_sizes_are_whole_pixels() -> None:
    """Bins of 1.5 px hold the images of one or of two sizes, which shows as stripes."""
    rng = np.random.default_rng(0)
    mesh = image_sizes(rng.integers(50, 140, 500).tolist(), rng.integers(60, 1000, 500).tolist()).axes[0].collections[0]
    corners = np.asarray(mesh.get_coordinates())
    for steps in (np.diff(corners[0, :, 0]), np.diff(corners[:, 0, 1])):
        assert len(steps) <= 61
        assert len(set(steps.tolist())) == 1
        assert steps[0] == int(steps[0])


@pytest.mark.parametrize("name", FIGURES)
def test_text_can_be_read_at_the_width_at_which_mlflow_shows_it(name: str) -> None:
    """Some 600 px: text of 7.5 points is 8 px high there in a figure of 8 inches, and too small in a wider one."""
    if name != "histograms":  # of `monitor`, which MLflow does not show
        assert FIGURES[name]().get_figwidth() <= 8


HOSTILE = {
    "text.usetex": True,
    "text.parse_math": True,
    "axes.formatter.use_mathtext": True,
    "font.family": ["serif"],
    "font.size": 22,
    "axes.facecolor": "black",
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=["red"]),
    "figure.dpi": 40,
    "figure.facecolor": "pink",
    "figure.constrained_layout.use": True,
    "image.cmap": "gray",
    "image.interpolation": "bicubic",
    "legend.frameon": True,
    "lines.linewidth": 9,
    "savefig.bbox": "tight",
    "savefig.dpi": 30,
    "savefig.transparent": True,
    "svg.fonttype": "none",
    "xtick.labelsize": 30,
}


@pytest.mark.parametrize("name", FIGURES)
def test_the_users_settings_change_no_byte_and_are_kept(name: str, tmp_path: Path) -> None:
    with mpl.rc_context(HOSTILE):
        before = dict(mpl.rcParams.copy())
        save_figure(FIGURES[name](), tmp_path / "hostile.png")
        assert dict(mpl.rcParams.copy()) == before
    assert (tmp_path / "hostile.png").read_bytes() == draw(name)


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "nonsense", "qtagg", ""])
def test_the_users_backend_and_settings_files_do_no_harm(backend: str, tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nbackend: nothing\nno such key: 1\n")
    (tmp_path / "read-only").touch()
    environment = os.environ | {
        "MPLBACKEND": backend,
        "MPLCONFIGDIR": str(tmp_path / "read-only" if backend else tmp_path),
        "PYTHONPATH": str(ROOT / "src"),
    }
    code = (
        "import os; from pathlib import Path\n"
        "from gender_classifier.common.figures import contact_sheet, save_figure\n"
        "save_figure(contact_sheet([], ['$1_$2'], 'Sheet of $x'), Path('sheet.png'))\n"
        "assert os.environ['MPLBACKEND'] == " + repr(backend)
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    save_figure(contact_sheet([], ["$1_$2"], "Sheet of $x"), tmp_path / "here.png")
    assert (tmp_path / "sheet.png").read_bytes() == (tmp_path / "here.png").read_bytes()
    assert logging.getLogger("matplotlib").level in (logging.NOTSET, logging.WARNING)


def test_nothing_imports_matplotlib_but_the_figures() -> None:
    """The first import decides whether the user's backend ends the process."""
    found = set()
    for path in (*ROOT.glob("src/**/*.py"), *ROOT.glob("stages/*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        guarded = {node for outer in ast.walk(tree) if isinstance(outer, ast.If) for node in ast.walk(outer)}
        for node in set(ast.walk(tree)) - guarded:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {str(path.relative_to(ROOT)) for name in names if name.split(".")[0] == "matplotlib"}
    assert found == {"src/gender_classifier/common/figures.py"}


ODD_NAMES = [
    "$1_$2",
    "$\\frac{",
    "a\nb\rc\td",
    "\u5973\u6027",
    "\U0001f9d4",
    "\u202egpj.exe",
    "\x00\x1b[31m",
    "\udce9",
    "W" * 300,
    "",
    "\\$",
    "_{x}^",
]


@pytest.mark.parametrize(("odd", "other"), list(zip(ODD_NAMES[::2], ODD_NAMES[1::2], strict=True)))
def test_any_name_is_drawn_as_text(odd: str, other: str, tmp_path: Path) -> None:
    """Warnings are errors here: a missing glyph, or a layout without room, would be one."""
    names = (odd, other)
    counts = {name: {"ok": 3, "rejected": 1} for name in names}
    figures = [
        class_balance({"Training": counts}),
        split_balance({"train": dict.fromkeys(names, 3)}),
        confusion_matrix(CONFUSION, names, f"Further set {odd}", (0.9, 1)),
        roc_curve({odd: ROC}, 0.9, (0.0, 1.0)),
        attribute_table([{**row, "value": other} for row in PEOPLE], names, odd),
        compared(names),
    ]
    for figure in figures:
        save_figure(figure, tmp_path / "figure.png")
    sheet = contact_sheet([draw_pixels(1)], [f"Training/{odd}\n{other}\nempty"], other)
    save_figure(sheet, tmp_path / "sheet.png")


def test_a_dollar_is_no_formula() -> None:
    figure = contact_sheet([None], ["female\n$1_$2.jpg"], "Costs of $5 to $6")
    assert {"female\n$1_$2.jpg", "Costs of $5 to $6"} <= texts(figure)
    assert not any(text.get_parse_math() for axes in figure.axes for text in axes.texts)
    labels = attribute_table(PEOPLE, ("a$b$", "c"), "Set").axes[0].get_yticklabels()
    assert "income: $0_-$20k  (n 20)" in [label.get_text() for label in labels]
    with own_style():
        figure = FIGURES["reliability"]()
        figure.draw_without_rendering()
    for axes in figure.axes:
        assert not any("$" in label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels()))


@settings(deadline=None)
@given(st.text(st.characters(codec=None), max_size=60), st.integers(8, 40))
def test_one_line_fits_and_can_be_drawn(text: str, most: int) -> None:
    shown = one_line(text, most)
    assert shown.isprintable()
    assert len(shown) <= most
    assert one_line(shown, most) == shown


def test_names_keep_both_ends_and_say_what_the_font_lacks() -> None:
    assert one_line("0123456789.jpg", 9) == "0123….jpg"
    assert one_line("a\r\u5973\u202e.jpg", 40) == "a\\r\\u5973\\u202e.jpg"
    assert one_line("na\u00efve caf\u00e9", 40) == "na\u00efve caf\u00e9"

"""Images hold the data they are given, and the same data give the same bytes."""

import ast
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib as mpl
import numpy as np
import pytest
from checkout import ROOT
from conftest import draw_pixels
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from gender_classifier.common.figures import confusion_matrix, contact_sheet, one_line, own_style, save_figure
from gender_classifier.evaluate.figures import attribute_table, reliability, robustness, roc_curve
from gender_classifier.metrics.calibration import reliability_points
from gender_classifier.metrics.curves import roc_points
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


CORRUPTED = [
    {"corruption": "none", "strength": 0, "setting": "", "accuracy": 0.95, "drop": 0.0},
    *(
        {"corruption": name, "strength": one, "setting": f"{one} px", "accuracy": 0.95 - one / 10, "drop": one / 10}
        for name in ("blurred", "darker")
        for one in (1, 2, 3)
    ),
]

PEOPLE = [
    {"attribute": name, "value": value, "n": 20, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 0.95,
     "recalls": [(10, 0.9, 0.8, 0.95), (10, None, None, None)]}
    for name, value in (("all", ""), ("income", "$0_-$20k"), ("age", "20-29"))
]  # fmt: skip


def compared(categories: tuple[str, ...] = ("female", "male")) -> Figure:
    counts = {"train": np.array([4, 9]), "new": np.array([5, 2])}
    edges = np.array([0.0, 0.5, 1.0])
    panels = [
        Panel("brightness: stable", "mean level", edges, (), counts),
        Panel("class: drift", "predicted class", edges, categories, counts),
    ]
    return compare_histograms(panels, "New images")


FIGURES: dict[str, Callable[[], Figure]] = {
    "class_balance": lambda: class_balance(COUNTS),
    "image_sizes": lambda: image_sizes([60, 80, 80, 100], [80, 100, 101, 140]),
    "one size": lambda: image_sizes([80, 80], [100, 100]),
    "no sizes": lambda: image_sizes([], []),
    "split_balance": lambda: split_balance({"train": {"female": 9, "male": 8}, "test": {"female": 2, "male": 3}}),
    "curves": lambda: curves(records(20), 17),
    "robustness": lambda: robustness(CORRUPTED),
    "robust": lambda: robustness([{**row, "accuracy": 1.0} for row in CORRUPTED]),
    "one epoch": lambda: curves(records(1), 1),
    "confusion": lambda: confusion_matrix(CONFUSION, ("female", "male"), "Test set"),
    "roc": lambda: roc_curve(roc_points(PROBS, LABELS), 0.9123, "male"),
    "reliability": lambda: reliability(reliability_points(BOTH, LABELS), 0.0321),
    "sheet": lambda: contact_sheet([draw_pixels(1), None, draw_pixels(2, 300, 40)], ["a", "b\nempty", "c"], "Three"),
    "attributes": lambda: attribute_table(PEOPLE, ("female", "male"), "Further set new"),
    "histograms": compared,
    "empty sheet": lambda: contact_sheet([], [], "0 of 0 rejected images"),
}


def texts(figure: Figure) -> set[str]:
    found = {figure.get_suptitle()}
    for axes in figure.axes:
        found |= {axes.get_title(), axes.get_xlabel(), axes.get_ylabel()}
        found |= {text.get_text() for text in axes.texts}
        legend = axes.get_legend()
        found |= {text.get_text() for text in legend.get_texts()} if legend else set()
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
        assert min(image.size) >= 250
        assert np.asarray(image.convert("L")).std() > 3
    assert len(list(tmp_path.iterdir())) == 1


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
    axes = robustness(CORRUPTED).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["blurred", "darker"]
    texts = [text.get_text() for text in axes.texts]
    assert "0.850  1 px" in texts
    assert "clean 0.950" in texts
    assert max(axes.get_xticks()) <= 1


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
        confusion_matrix(CONFUSION, names, f"Further set {odd}"),
        roc_curve(roc_points(PROBS, LABELS), 0.9, odd),
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
        figure.canvas.draw()
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

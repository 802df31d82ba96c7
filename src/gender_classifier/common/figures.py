"""Matplotlib with its default style whatever the user's settings, text without formulas, and figures of two rooms."""

import os
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.colors import class_color as class_color
from gender_classifier.common.files import replacing
from gender_classifier.common.logs import quiet_loggers


@contextmanager
def _importing_matplotlib() -> Iterator[None]:
    """Import without ``MPLBACKEND``, which a notebook exports to its commands and may name a missing package.

    Matplotlib's warnings about settings and folders are hidden as well: no figure depends on them.
    """
    backend, is_first = os.environ.pop("MPLBACKEND", None), "matplotlib" not in sys.modules
    try:
        with quiet_loggers("matplotlib"):
            yield
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend and is_first:
        with suppress(ValueError):  # restored for pyplot
            mpl.rcParams["backend"] = backend


with _importing_matplotlib():
    import matplotlib as mpl
    import matplotlib.style
    from matplotlib.axes import Axes as Axes
    from matplotlib.figure import Figure as Figure
    from matplotlib.ft2font import FT2Font
    from matplotlib.ticker import MaxNLocator as MaxNLocator
    from matplotlib.ticker import NullFormatter as NullFormatter

# Other modules import Matplotlib's classes from here, so that the guard above runs first.

# rcParams are global.
_DRAWING = threading.RLock()


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with Matplotlib's defaults and restore the user's settings afterwards; also a decorator.

    Some settings are read when an artist is created, others when it is drawn: do both inside. Text is never parsed as
    a formula, since file names may contain ``$``.
    """
    with _DRAWING, mpl.rc_context():
        mpl.style.use("default")
        mpl.rcParams["text.parse_math"] = False
        yield


def one_line(text: str, most: int = 80) -> str:
    r"""Return ``text`` as one line of at most ``most`` characters, shortened in the middle.

    Control characters, and characters that the font lacks, are written as ``\x``, ``\u`` or ``\U`` escapes.
    """
    glyphs = _read_glyphs()
    shown = "".join(char if char.isprintable() and ord(char) in glyphs else ascii(char)[1:-1] for char in text)
    if len(shown) <= most:
        return shown
    tail = (most - 1) // 2
    return f"{shown[: most - 1 - tail]}…{shown[len(shown) - tail :]}"


@cache
def _read_glyphs() -> frozenset[int]:
    """Return the code points of Matplotlib's bundled default font."""
    return frozenset(FT2Font(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")).get_charmap())


# Okabe & Ito's palette, which colour-blind readers can distinguish.
TRAIN_COLOR, VAL_COLOR, MARK_COLOR = "#0072B2", "#D55E00", "#555555"
OK_COLOR, REJECTED_COLOR = "#009E73", "#D55E00"


SHADES = ("#9ECAE1", "#4292C6", "#08519C")  # light to strong

_DPI = 120
MAX_CLASS_NAME, _CAPTION, _CAPTION_LINES = 16, 20, 4  # characters, characters per line, lines

# MLflow shows artifacts about 600 px wide: text in figures wider than 8 inches would be too small to read.
_SHEET_COLUMNS, _PANEL = 6, 1.28  # panels, inches


@own_style()
def save_figure(figure: Figure, path: Path, *, title: str | None = None) -> None:
    """Write ``figure`` as PNG, atomically; equal figures give equal bytes.

    Args:
        figure: to draw.
        path: of the file.
        title: kept in the file, as PNG's text ``Title``.
    """
    with replacing(path) as temporary:
        metadata = {"Software": None, "Title": title}
        figure.savefig(temporary, format="png", dpi=_DPI, metadata=metadata, backend="agg")


@own_style()
def contact_sheet(images: Sequence[NDArray[np.uint8] | None], captions: Sequence[str], title: str) -> Figure:
    """Lay out images, uint8 (H, W, 3) of any size or None where decoding failed, with a caption below each."""
    columns = min(_SHEET_COLUMNS, max(len(images), 4))
    rows = max(-(-len(images) // columns), 1)
    lines = max((min(caption.count("\n") + 1, _CAPTION_LINES) for caption in captions), default=1)
    step = _PANEL + 0.125 * lines + 0.1
    width, height = _PANEL * columns, 0.4 + rows * step
    figure = Figure(figsize=(width, height))
    figure.suptitle(one_line(title), fontsize=11, y=1 - 0.1 / height, va="top")
    # One axes in inches for all panels: making and drawing one for each takes five times as long.
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    if not len(images):
        axes.text(width / 2, height / 2, "none", ha="center", va="center", color=MARK_COLOR)
    for number, (image, caption) in enumerate(zip(images, captions, strict=False)):
        row, column = divmod(number, columns)
        x, y = (column + 0.5) * _PANEL, 0.4 + row * step + _PANEL / 2
        shown = np.full((4, 4, 3), 225, np.uint8) if image is None else image
        half = (_PANEL / 2 - 0.05) / max(shown.shape[:2])
        across, down = shown.shape[1] * half, shown.shape[0] * half
        axes.imshow(shown, interpolation="nearest", aspect="auto", extent=(x - across, x + across, y + down, y - down))
        if image is None:
            axes.text(x, y, "cannot be\ndecoded", ha="center", va="center", fontsize=8)
        text = "\n".join(one_line(line, _CAPTION) for line in caption.split("\n")[:_CAPTION_LINES])
        axes.text(x, y + _PANEL / 2, text, fontsize=7.5, ha="center", va="top")
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


@own_style()
def confusion_matrix(
    confusion: NDArray[np.int64], classes: Sequence[str], title: str, interval: tuple[float, float]
) -> Figure:
    """Draw counts and, beside them, shares of each actual class.

    Args:
        confusion: int64 (C, C), rows actual.
        classes: C names.
        title: of the figure; the accuracy is appended.
        interval: 95 % interval of the accuracy.
    """
    # Above four classes the panels go below each other, where their cells stay readable.
    stacked = len(classes) > 4
    side = 1.6 + 0.62 * len(classes)
    figure = Figure(figsize=(min(max(7.6, side), 8), 2 * side) if stacked else (7.6, 4), layout="constrained")
    total = max(int(confusion.sum()), 1)
    low, high = (f"{100 * bound:.1f}" for bound in interval)
    figure.suptitle(
        f"{one_line(title)}: accuracy {format_share(confusion.trace() / total)} (95 % interval {low} to {high}), "
        f"{total:,} images",
        fontsize=11,
    )
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    panels = figure.subplots(2, 1) if stacked else figure.subplots(1, 2)
    _draw_matrix(panels[0], shares, [[f"{count:,}" for count in row] for row in confusion], classes, "Counts")
    texts = [[format_share(share) for share in row] for row in shares]
    _draw_matrix(panels[1], shares, texts, classes, "Share of the actual class")
    return figure


def start_figure(title: str, width: float, height: float = 4.2) -> tuple[Figure, Axes]:
    """Return a figure with one axes, size in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    tidy_axes(axes)
    return figure, axes


def shorten_names(names: Iterable[str]) -> list[str]:
    """Shorten class names for tick labels."""
    return [one_line(name, MAX_CLASS_NAME) for name in names]


def name_classes(axes: Axes, names: Sequence[str], *, room: int) -> bool:
    """Label the x ticks 0, 1, ...; return True if the names are turned, exceeding ``room`` characters together."""
    is_turned = len(names) * max(map(len, names)) > room
    axes.set_xticks(range(len(names)), names, rotation=30 * is_turned, ha="right" if is_turned else "center")
    return is_turned


def format_share(share: float) -> str:
    """Return a fraction as percent with one decimal; 0 % and 100 % are never the result of rounding."""
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def format_percent_tick(value: float, _: float = 0) -> str:
    """Return a tick's fraction as percent, with as many decimals as it has: a fixed number rounds ticks of 2.5 %."""
    return f"{100 * value:g}%"


def legend_name(name: str) -> str:
    """Return a class name for a legend, where Matplotlib hides labels that begin with an underscore."""
    return (" " if name.startswith("_") else "") + one_line(name, MAX_CLASS_NAME)


def tidy_axes(axes: Axes) -> None:
    """Remove the frame's top and right, and draw a faint horizontal grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)


def _draw_matrix(
    axes: Axes, shares: NDArray[np.float64], texts: Sequence[Sequence[str]], classes: Sequence[str], title: str
) -> None:
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, line in enumerate(texts):
        for column, text in enumerate(line):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=13 if len(classes) < 4 else 9)
    names = shorten_names(classes)
    name_classes(axes, names, room=24 if len(names) < 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title(title, fontsize=10)

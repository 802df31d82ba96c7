"""Matplotlib as this project uses it: its own defaults, whatever the user's settings, and text that is only text."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path


@contextmanager
def _importing_matplotlib() -> Iterator[None]:
    """Hide ``MPLBACKEND`` meanwhile: the import fails on a backend that is not installed.

    A notebook exports its own backend to every command that it starts. Matplotlib's remarks on settings and folders
    are kept back as well: no figure depends on them.
    """
    backend, is_first = os.environ.pop("MPLBACKEND", None), "matplotlib" not in sys.modules
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend and is_first:
        with suppress(ValueError):  # for those who go on with pyplot
            mpl.rcParams["backend"] = backend


with _importing_matplotlib():
    import matplotlib as mpl
    import matplotlib.style
    from matplotlib.ft2font import FT2Font

# rcParams belong to the whole process.
_DRAWING = threading.RLock()


@contextmanager
def own_style() -> Iterator[None]:
    """Draw with Matplotlib's defaults, and put the user's settings back afterwards; usable as a decorator.

    Some settings are read when an artist is made, others when it is drawn: both must happen inside. Text is never
    parsed as a formula, as ``$`` is an ordinary character of a file's name.
    """
    with _DRAWING, mpl.rc_context():
        mpl.style.use("default")
        mpl.rcParams["text.parse_math"] = False
        yield


def one_line(text: str, most: int = 80) -> str:
    r"""Return ``text`` as a figure can show it: one line of at most ``most`` characters, shortened in the middle.

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
    """Return the code points of Matplotlib's default font, which comes with it."""
    return frozenset(FT2Font(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")).get_charmap())

"""Progress bars, shown in terminals only."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def show_progress(items: Iterable[Any] | None = None, *, total: int, name: str, **options: Any) -> "tqdm[Any]":
    """Return a progress bar over images, to iterate over or to ``update``; silent outside a terminal.

    Args:
        items: to iterate over; None to call ``update``.
        total: number of images.
        name: label of the bar.
        options: passed to ``tqdm``.
    """
    return tqdm(items, total=total, desc=name, unit="img", disable=None, dynamic_ncols=True, **options)

"""Progress bars: in a terminal only, as wide as it is."""

from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def show_progress(items: Iterable[Any] | None = None, *, total: int, name: str, **options: Any) -> "tqdm[Any]":
    """Return a progress bar over images, to iterate over or to ``update`` by hand; quiet without a terminal.

    Args:
        items: to iterate over; None to update by hand.
        total: images.
        name: stands before the bar.
        options: others of ``tqdm``.
    """
    return tqdm(items, total=total, desc=name, unit="img", disable=None, dynamic_ncols=True, **options)

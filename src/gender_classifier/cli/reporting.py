"""Progress bars and messages about single images, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gender_classifier.common.terminal import printable


def report_unreadable(command: str, name: str, reason: str) -> None:
    """Print why an image cannot be read."""
    print(printable(f"gender-classifier {command}: {name}: {reason}"), file=sys.stderr)


@contextmanager
def show_progress(*, disable: bool | None = None) -> Iterator[Callable[[int], object]]:
    """Show a progress bar if the work takes more than a second, and yield a function to advance it by some images.

    Args:
        disable: True for no bar; None for a bar in a terminal only.
    """
    from tqdm import tqdm

    with tqdm(unit=" images", disable=disable, delay=1, dynamic_ncols=True) as bar:
        yield bar.update

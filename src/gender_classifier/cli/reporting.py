"""Progress bars and messages about single images, on standard error."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gender_classifier.common.terminal import printable


def report_unreadable(command: str, name: str, reason: str) -> None:
    """Print why an image cannot be read."""
    print(printable(f"gender-classifier {command}: {name}: {reason}"), file=sys.stderr)


@contextmanager
def show_progress(*, disable: bool = False) -> Iterator[Callable[[int], object]]:
    """Show a progress bar in a terminal if the work takes more than a second; yield a function to advance it by images.

    Args:
        disable: True for no bar in a terminal either.
    """
    if disable or not sys.stderr.isatty():  # importing tqdm would take 6 % of the time of predicting one image
        yield lambda images: None
        return
    from tqdm import tqdm

    with tqdm(unit=" images", delay=1, dynamic_ncols=True) as bar:
        yield bar.update

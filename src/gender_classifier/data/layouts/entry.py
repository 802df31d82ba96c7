"""One image as a layout finds it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """What a source says about one image, in its own words.

    Attributes:
        path: in the source, separated by ``/``.
        member: path relative to the data set in the source.
        label: name of its class folder, or its label in a table.
        split: name of its split; an empty text without one.
        group: the person; an empty text if the source does not say.
        attributes: values of the columns that describe it.
    """

    path: str
    member: str
    label: str
    split: str = ""
    group: str = ""
    attributes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """What a layout finds in a source.

    Attributes:
        layout: its name, for people.
        entries: the images.
        attributes: names of the columns that describe them.
        tables: paths of the files that the labels come from.
    """

    layout: str
    entries: Sequence[Entry]
    attributes: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

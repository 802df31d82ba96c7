"""The layout of labelled images in folders: class folders, in split folders or without."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.data.file_names import escape_name, find_collision, has_image_suffix, list_first, may_be_image
from gender_classifier.data.names import RAW_SPLITS
from gender_classifier.errors import SourceError


@dataclass(frozen=True)
class Rules:
    """Requirements on a labelled source.

    Attributes:
        name: of the param that gives the path; messages begin with it.
        classes: names in label order.
        needs_splits: every image must be in a split, and each split must have images of every class. Otherwise split
            folders are optional.
        refuses_strays: an image outside the class folders is an error. Otherwise it is ignored.
        refuses_unreadable: an image that cannot be read is an error on opening. Otherwise on reading.
        if_missing: advice for a path that does not exist.
    """

    name: str
    classes: Sequence[str]
    needs_splits: bool
    refuses_strays: bool
    refuses_unreadable: bool
    if_missing: str = "check the path in params.yaml"

    def describe_layout(self) -> str:
        """Return what a folder or zip must hold, for messages."""
        if self.needs_splits:
            return f"{', '.join(f'{split}/{label}' for split in RAW_SPLITS for label in self.classes)}, with images"
        return f"{', '.join(self.classes)}, with images, these at the top or in {' and '.join(RAW_SPLITS)}"


def find_images(names: Sequence[str], path: Path, rules: Rules, *, at_top: bool = False) -> dict[str, tuple[str, str]]:
    """Find the one folder that holds the class folders, and the images in it.

    Args:
        names: of the files below ``path``, separated by ``/``.
        path: of the folder or zip.
        rules: which layouts are accepted.
        at_top: take the data set at the top, whatever lies deeper.

    Returns:
        Name of each image to its split, an empty text outside split folders, and its class.

    Raises:
        SourceError: there is no such folder or more than one, or a file in it is out of place.
    """
    where = f"{rules.name}: {path}"
    holders = _find_holders(names, rules)
    # A link beside the data set gives it a second name, which is no second data set.
    distinct = {os.path.realpath(path / holder): holder for holder in sorted(holders, reverse=True)}
    chosen = {""} if at_top else set(distinct.values())
    if not chosen & holders:
        tops = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in names})
        raise SourceError(
            f"{where}: is no data set of this layout; it must hold {rules.describe_layout()}, and holds "
            f"{list_first(tops) or 'no file'}"
        )
    if len(chosen) > 1:
        choices = list_first(f"{path}/{holder or '.'}" for holder in sorted(chosen))
        raise SourceError(f"{where}: holds {len(chosen)} data sets; give the path of one: {choices}")
    found = dict(_place_all(names, chosen.pop(), where, rules))
    if collision := find_collision(found):
        both = list_first(collision).replace(", ", " and ")
        raise SourceError(f"{where}: {both} would both become {escape_name(collision[0])}; rename one of them")
    return found


def check_complete(present: Iterable[tuple[str, str]], where: str, rules: Rules) -> None:
    """Refuse a source in which a split has no image of a class.

    Args:
        present: split and class of each image.
        where: begins the message.
        rules: name the classes.

    Raises:
        SourceError: names each split and class that is missing.
    """
    found = set(present)
    absent = [f"{split}/{label}" for split in RAW_SPLITS for label in rules.classes if (split, label) not in found]
    if absent:
        raise SourceError(
            f"{where}: {', '.join(absent)} missing or empty; the data set needs {rules.describe_layout()}"
        )


def _find_holders(names: Sequence[str], rules: Rules) -> set[str]:
    """Return the folders that hold split folders; if there are none, and these are optional, class folders."""
    layouts = [(RAW_SPLITS, 1)] if rules.needs_splits else [(RAW_SPLITS, 1), (rules.classes, 0)]
    for tops, levels_to_class in layouts:
        holders = set()
        for name in names:
            folders = name.split("/")[:-1]
            depths = [depth for depth in range(len(folders) - levels_to_class) if folders[depth] in tops]
            # A manual in `docs/Training/` makes no data set of `docs`.
            if depths and (may_be_image(name) or "/".join(folders[depths[0] + levels_to_class :]) in rules.classes):
                holders.add("/".join(folders[: depths[0]]))
        if holders:
            return holders
    return set()


def _place_all(names: Sequence[str], holder: str, where: str, rules: Rules) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield each image with its split and class; refuse images that are out of place."""
    for name in names:
        if holder and not name.startswith(f"{holder}/"):
            if rules.refuses_strays and has_image_suffix(name):
                raise SourceError(f"{where}: {list_first([name])} lies outside {holder}/, which has the class folders")
            continue
        folders = name.removeprefix(f"{holder}/").split("/")[:-1]
        split = folders.pop(0) if folders and folders[0] in RAW_SPLITS else ""
        placed = bool(folders) and (bool(split) or (folders[0] in rules.classes and not rules.needs_splits))
        if placed and len(folders) == 1 and folders[0] in rules.classes:
            yield name, (split, folders[0])
        elif may_be_image(name) if placed else rules.refuses_strays and has_image_suffix(name):
            raise SourceError(f"{where}: {list_first([name])} {_explain(split, folders, rules)}")


def _explain(split: str, folders: Sequence[str], rules: Rules) -> str:
    """Return why an image is out of place, to follow its name in a sentence."""
    if not folders or (not split and len(folders) > 1 and folders[0] not in rules.classes):
        return (
            f"lies in no class folder; images must lie straight in {'/ or '.join(rules.classes)}/, and these at the "
            f"top or in {'/ or '.join(RAW_SPLITS)}/"
        )
    label = folders[0]
    if label in rules.classes:
        return "lies in a folder below its class; put the images straight into it"
    if label in RAW_SPLITS:
        what = "the folder is doubled" if label == split else "one is inside the other"
        return f"lies in {split}/{label}, {what}; move the contents of {split}/{label} one level up"
    hint = f"rename it to {label.lower()!r}" if label.lower() in rules.classes else "rename or remove that folder"
    return f"lies in a class folder {label!r}; the classes are {' and '.join(rules.classes)}, {hint}"

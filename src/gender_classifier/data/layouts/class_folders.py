"""The layout of labelled images in folders: class folders, in split folders or without."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from pathlib import Path

from gender_classifier.data.file_names import has_image_suffix, list_first, may_be_image
from gender_classifier.data.layouts.entry import Entry
from gender_classifier.data.layouts.naming import SPLIT_NAMES, USUAL_CLASSES, ClassNames, fold_usual
from gender_classifier.errors import SourceError


@dataclass(frozen=True)
class Rules:
    """Requirements on a labelled source.

    Attributes:
        name: of the param that gives the path; messages begin with it.
        classes: names of each class, in label order; None leaves the classes to the source.
        fixed: the classes are those of a model: the source may lack some, and needs no training images; their usual
            names count too, in any case. Otherwise the source is for training: it has images of every class in every
            split.
        refuses_strays: an image outside the class folders is an error. Otherwise it is ignored.
        refuses_unreadable: an image that cannot be read is an error on opening. Otherwise on reading.
        format: ``auto``, or the only layout to read.
        columns: headers of a table by role; the others are usual
            (:data:`~gender_classifier.data.layouts.tables.COLUMNS`).
        if_missing: advice for a path that does not exist.
    """

    name: str
    classes: ClassNames | None
    fixed: bool
    refuses_strays: bool
    refuses_unreadable: bool
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    if_missing: str = "check the path in params.yaml"

    @cached_property
    def _known(self) -> dict[str, str]:
        if self.classes is None or self.fixed:
            return fold_usual(self.classes or USUAL_CLASSES)
        return {name: label for label, names in self.classes.items() for name in names}

    def find_class(self, name: str) -> str:
        """Return the class that a name is known to mean; an empty text if it is unknown."""
        return self._known.get(name.casefold() if self.classes is None or self.fixed else name, "")

    def describe_layout(self) -> str:
        """Return what a folder or zip must hold, for messages."""
        names = ", ".join(self.classes) if self.classes else "a folder for each class"
        return f"{names}, with images, these at the top or in split folders such as train and test"


def find_images(names: Sequence[str], path: Path, rules: Rules, *, at_top: bool = False) -> list[Entry]:
    """Find the one folder that holds the data set, and the images in it.

    The class folder is the first below the split folder or, without splits, the first below the data set's. Images may
    lie deeper.

    Args:
        names: of the files below ``path``, separated by ``/``.
        path: of the folder or zip.
        rules: which layouts are accepted.
        at_top: take the data set at the top, whatever lies deeper.

    Raises:
        SourceError: there is no such folder or more than one, or a file in it is out of place.
    """
    where = f"{rules.name}: {path}"
    images = [name for name in names if may_be_image(name)]
    with_splits, holders = _find_holders(images, rules, at_top=at_top)
    # A link beside the data set gives it a second name, which is no second data set.
    distinct = {os.path.realpath(path / holder): holder for holder in sorted(holders, reverse=True)}
    chosen = set(distinct.values())
    if not chosen:
        tops = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in names})
        raise SourceError(
            f"{where}: is no data set of this layout; it must hold {rules.describe_layout()}, and holds "
            f"{list_first(tops) or 'no file'}"
        )
    if len(chosen) > 1:
        choices = list_first(f"{path}/{holder or '.'}" for holder in sorted(chosen))
        raise SourceError(f"{where}: holds {len(chosen)} data sets; give the path of one: {choices}")
    return list(_place_all(names, chosen.pop(), where, rules, with_splits=with_splits))


def check_complete(present: Iterable[tuple[str, str]], where: str) -> None:
    """Refuse a source in which a split has no image of a class.

    Args:
        present: split and class of each image.
        where: begins the message.

    Raises:
        SourceError: names each split and class that is missing.
    """
    found = set(present)
    splits, labels = ({pair[place] for pair in found} for place in (0, 1))
    absent = [f"{split}/{label}" for split, label in sorted(product(splits, labels)) if (split, label) not in found]
    if absent:
        raise SourceError(f"{where}: {list_first(absent)} missing or empty; each split needs images of every class")


def _find_holders(images: Sequence[str], rules: Rules, *, at_top: bool) -> tuple[bool, set[str]]:
    """Return whether the data set has splits, and the folders that hold split folders or else class folders."""
    splits: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    for name in images:
        folders = name.split("/")[:-1]
        for depth, folder in enumerate(folders[:1] if at_top else folders):
            split = SPLIT_NAMES.get(folder.casefold())
            if split and depth + 1 < len(folders):  # a split folder has class folders below
                splits.setdefault("/".join(folders[:depth]), set()).add(split)
                break
        for depth, folder in enumerate(folders[:1] if at_top else folders):
            if label := rules.find_class(folder):
                classes.setdefault("/".join(folders[:depth]), set()).add(label)
                break
    # A class may have a folder `test/` or `f/` of its own: a set to train on has more than that.
    with_splits = {holder for holder, found in splits.items() if rules.fixed or "train" in found}
    if with_splits:
        return True, with_splits
    by_class = {holder for holder, found in classes.items() if rules.fixed or len(found) > 1}
    if by_class or rules.fixed:
        return False, by_class
    return False, {""} if at_top else _find_branching(images)


def _find_branching(images: Sequence[str]) -> set[str]:
    """Return the first folder from the top with more than one folder in it, if there is one."""
    holder = ""
    while tops := {rest.split("/")[0] for name in images if "/" in (rest := name[len(holder) :])}:
        if len(tops) > 1:
            return {holder.rstrip("/")}
        holder += f"{tops.pop()}/"
        images = [name for name in images if name.startswith(holder)]
    return set()


def _place_all(names: Sequence[str], holder: str, where: str, rules: Rules, *, with_splits: bool) -> Iterator[Entry]:
    """Yield each image with its place; refuse images that are out of place."""
    for name in names:
        if holder and not name.startswith(f"{holder}/"):
            if rules.refuses_strays and has_image_suffix(name):
                raise SourceError(f"{where}: {list_first([name])} lies outside {holder}/, which has the class folders")
            continue
        member = name.removeprefix(f"{holder}/") if holder else name
        folders = member.split("/")[:-1]
        split = folders.pop(0) if with_splits and folders and folders[0].casefold() in SPLIT_NAMES else ""
        is_known = bool(folders) and bool(rules.find_class(folders[0]))
        is_nested = bool(split and folders) and folders[0].casefold() in SPLIT_NAMES
        # Beside split folders, only a model's classes are known to be ones.
        may_be_class = bool(folders) and not rules.fixed and (bool(split) or not with_splits)
        if not is_nested and (may_be_class or (is_known and (bool(split) or rules.fixed))):
            if may_be_image(name):
                yield Entry(name, member, folders[0], split)
        elif may_be_image(name) if split and folders else rules.refuses_strays and has_image_suffix(name):
            raise SourceError(f"{where}: {list_first([name])} {_explain(split, folders, rules)}")


def _explain(split: str, folders: Sequence[str], rules: Rules) -> str:
    """Return why an image is out of place, to follow its name in a sentence."""
    known = " and ".join(rules.classes or ())
    if not folders or (not split and len(folders) > 1):
        return f"lies in no class folder; put it into one{f' ({known})' if known else ''}"
    label = folders[0]
    if label.casefold() in SPLIT_NAMES:
        what = "the folder is doubled" if label == split else "one is inside the other"
        return f"lies in {split}/{label}, {what}; move the contents of {split}/{label} one level up"
    return f"lies in a class folder {label!r}; the classes are {known}, rename or remove that folder"

"""Names of classes and splits: what the folders or labels of a source mean."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence

from gender_classifier.data.file_names import list_first
from gender_classifier.errors import SourceError

AUTO = "auto"
"""Value of ``ingest.classes`` that leaves the classes to the source."""

ClassNames = Mapping[str, Sequence[str]]
"""Class, in label order, to the names that mean it."""

USUAL_CLASSES: ClassNames = {
    "female": ("female", "woman", "women", "f", "girl"),
    "male": ("male", "man", "men", "m", "boy"),
}
"""Names of the two classes, in any case."""

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval"),
    "test": ("test", "testing"),
}
SPLIT_NAMES: Mapping[str, str] = {name: split for split, names in _SPLITS.items() for name in names}
"""Usual names of splits, in lower case, to what they mean in a source that has all three."""

_MAX_CLASSES, _MAX_NAME = 1000, 200  # as in a model file
_LEAST = 2  # images of a class: one to learn from, one to measure


def read_classes(text: str) -> ClassNames | None:
    """Return the mapping in the param ``ingest.classes``, which holds it as JSON; None for :data:`AUTO`."""
    names: ClassNames | None = None if text == AUTO else json.loads(text)
    return names


def order_classes(labels: Iterable[str], text: str) -> tuple[str, ...]:
    """Return the classes of a data set in label order: that of ``ingest.classes``, or sorted."""
    return tuple(read_classes(text) or sorted(set(labels)))


def fold_usual(classes: Iterable[str]) -> dict[str, str]:
    """Return names in lower case to the class that they mean: each class by its own name, and by its usual ones."""
    return {name.casefold(): label for label in classes for name in (label, *USUAL_CLASSES.get(label, ()))}


def map_classes(found: Mapping[str, int], wanted: ClassNames | None, where: str) -> dict[str, str]:
    """Decide which class each name means.

    Args:
        found: names in the source, of class folders or in the label column, to their numbers of images.
        wanted: names of each class. With None these are ``female`` and ``male`` if every name found is a usual one of
            these; otherwise each name is a class.
        where: begins messages.

    Returns:
        Name to class, for each name found; the classes first in label order.

    Raises:
        SourceError: a name is in ``wanted`` or in the source alone; or there are too few classes or images.
    """
    if wanted is None:
        usual = fold_usual(USUAL_CLASSES)
        is_usual = all(name.casefold() in usual for name in found)
        mapped = {name: usual[name.casefold()] if is_usual else name for name in sorted(found)}
        order: Collection[str] = sorted(set(mapped.values()))
    else:
        meant, order = {name: label for label, names in wanted.items() for name in names}, list(wanted)
        if missing := sorted(set(meant) - set(found)):
            raise SourceError(
                f"{where}: ingest.classes names {list_first(missing)}, which no image has; the source has "
                f"{list_first(sorted(found))}"
            )
        if unnamed := sorted(set(found) - set(meant)):
            raise SourceError(
                f"{where}: has the class {list_first(unnamed)}, which ingest.classes does not name; add it to a class "
                "there, or take these images out"
            )
        mapped = {name: meant[name] for name in found}
    _check(order, {label: sum(found[name] for name in mapped if mapped[name] == label) for label in order}, where)
    return {name: label for label in order for name in mapped if mapped[name] == label}


def _check(classes: Collection[str], counts: Mapping[str, int], where: str) -> None:
    if not 2 <= len(classes) <= _MAX_CLASSES:
        raise SourceError(
            f"{where}: the number of its classes is {len(classes):,} ({list_first(classes)}); it must be 2 to "
            f"{_MAX_CLASSES:,}"
        )
    for name in classes:
        if not name.strip() or not name.isprintable() or len(name) > _MAX_NAME:
            raise SourceError(f"{where}: has the class {name[:40]!a}; a name is 1 to {_MAX_NAME} printable characters")
        if counts[name] < _LEAST:
            raise SourceError(
                f"{where}: the class {name!r} has {counts[name]} image and needs at least {_LEAST}; add images, remove "
                "it, or merge it with another class in ingest.classes"
            )


def map_splits(found: Iterable[str], where: str) -> dict[str, str]:
    """Decide which split each name means.

    Of two splits, the one that is not ``train`` is ``test``, whatever its name; three are what their names say. A
    source without splits, or with training images alone, is all ``train``.

    Args:
        found: names of splits in the source; an empty text for images in none.
        where: begins messages.

    Raises:
        SourceError: there is no training split, a third one has no usual name, or some images alone are in none.
    """
    meant = {name: SPLIT_NAMES.get(name.casefold(), name) for name in sorted(set(found))}
    if set(meant) <= {""}:
        return dict.fromkeys(meant, "train")
    splits, named = set(meant.values()), list_first(name or "(none)" for name in meant)
    if "" in splits:
        raise SourceError(f"{where}: has the splits {named}; give every image a split, or none")
    if "train" not in splits:
        raise SourceError(f"{where}: has the splits {named}, of which none is train; rename the one to learn from")
    if len(splits) <= 2:
        return {name: split if split == "train" else "test" for name, split in meant.items()}
    if splits != {"train", "val", "test"}:
        raise SourceError(f"{where}: has the splits {named}; three must be train, val and test, and more are not used")
    return meant

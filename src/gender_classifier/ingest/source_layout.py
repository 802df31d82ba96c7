"""The layout of a data set: where in a source ``Training/`` and ``Validation/`` lie, and what is in them."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from gender_classifier.data.contents import may_be_image
from gender_classifier.data.file_names import escape_name, find_collision, list_first
from gender_classifier.data.names import CLASSES, RAW_SPLITS
from gender_classifier.errors import SourceError

_LAYOUT = f"{', '.join(f'{split}/{label}' for split in RAW_SPLITS for label in CLASSES)}, with images"


def find_layout(
    names: Sequence[str],
    path: Path,
    *,
    at_top: bool = False,
    identify: Callable[[str], object] = lambda root: root,
) -> dict[str, str]:
    """Find the one folder that holds the layout.

    Args:
        names: of the source's files, with ``/`` between their parts.
        path: of the source, for messages.
        at_top: take the data set at the top, whatever lies deeper.
        identify: equal for two folders, as paths in the source, that are one under two names.

    Returns:
        The name that each image gets, such as ``Training/female/1.jpg``, to the one in ``names``.

    Raises:
        SourceError: there is no such folder or more than one, or it is laid out otherwise.
    """
    placed = {name: place for name in names if (place := _place(name)) is not None}
    # A manual in `docs/Training/` makes no data set of `docs`.
    holders = {root for name, (root, inner) in placed.items() if inner[1] in CLASSES or may_be_image(name)}
    roots = {identify(root): root for root in sorted(holders, reverse=True)}
    chosen = {""} if at_top else set(roots.values())
    if not chosen & holders:
        tops = sorted({name.partition("/")[0] + ("/" if "/" in name else "") for name in names})
        held = list_first(tops) or "no file"
        raise SourceError(f"source {path}: is no data set of this layout; it must hold {_LAYOUT}, and holds {held}")
    if len(chosen) > 1:
        choices = list_first(f"{path}/{root or '.'}" for root in sorted(chosen))
        raise SourceError(f"source {path}: holds {len(chosen)} data sets; give the path of one: {choices}")
    found = {
        name: inner for name, (root, inner) in placed.items() if root in chosen and _check_place(path, name, inner)
    }
    collision = find_collision("/".join(inner) for inner in found.values())
    if collision:
        both = list_first(collision).replace(", ", " and ")
        raise SourceError(f"source {path}: {both} would both become {escape_name(collision[0])}; rename one of them")
    _check_complete(path, found.values())
    return {escape_name("/".join(inner)): name for name, inner in found.items()}


def _place(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Split a name into the folder that holds the layout and the parts within it; None outside any layout."""
    parts = name.split("/")
    for depth, part in enumerate(parts[:-1]):
        if part in RAW_SPLITS:
            inner = tuple(parts[depth:])
            return ("/".join(parts[:depth]), inner) if len(inner) > 2 else None
    return None


def _check_place(path: Path, name: str, inner: tuple[str, ...]) -> bool:
    """Return True if a file lies straight in a class folder; refuse an image that lies in another folder."""
    split, label = inner[:2]
    if label in CLASSES and len(inner) == 3:
        return True
    if not may_be_image(name):
        return False
    if label in RAW_SPLITS:
        what = "the folder is doubled" if label == split else "one is inside the other"
        reason = f"lies in {split}/{label}, {what}; move the contents of {split}/{label} one level up"
    elif label not in CLASSES:
        hint = f"rename it to {label.lower()!r}" if label.lower() in CLASSES else "rename or remove that folder"
        reason = f"lies in a class folder {label!r}; the classes are {' and '.join(CLASSES)}, {hint}"
    else:
        reason = "lies in a folder below its class; put the images straight into it"
    raise SourceError(f"source {path}: {list_first([name])} {reason}")


def _check_complete(path: Path, found: Iterable[tuple[str, ...]]) -> None:
    present = {inner[:2] for inner in found}
    missing = [f"{split}/{label}" for split in RAW_SPLITS for label in CLASSES if (split, label) not in present]
    if missing:
        raise SourceError(f"source {path}: {', '.join(missing)} missing or empty; the data set needs {_LAYOUT}")

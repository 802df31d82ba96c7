"""Labelled images in files: a folder, a zip or a CSV, listed before any of them is read."""

import csv
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from gender_classifier.data.archive import Archive, split_archive_path
from gender_classifier.data.contents import Contents, list_archive, list_folder
from gender_classifier.data.file_names import (
    OTHER_ARCHIVES,
    escape_name,
    find_collision,
    find_suffix,
    has_image_suffix,
    list_first,
)
from gender_classifier.data.folders import read_file
from gender_classifier.data.names import RAW_SPLITS
from gender_classifier.errors import DataError, SourceError

MOST_VALUES = 50
"""Of an attribute; a column with more, such as a person's number, is no attribute to tabulate."""

_REQUIRED = ("path", "label")


@dataclass(frozen=True)
class LabelledImage:
    """One image of a set, unread; ``attributes`` are in the order of the set's."""

    name: str
    label: int
    attributes: tuple[str, ...]
    read: Callable[[], bytes]


@dataclass
class LabelledSet:
    """A set opened for reading.

    ``left_out`` are columns with too many values to be attributes, ``ignored`` the files beside the images.
    """

    name: str
    images: Sequence[LabelledImage]
    attributes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ignored: int = 0
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "LabelledSet":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the zip, if it is one."""
        self._open.close()


def open_labelled_set(name: str, path: Path, classes: Sequence[str]) -> LabelledSet:
    """List the images of a set; none is read yet.

    A folder or zip holds a folder a class at its top, or in ``Training/`` and ``Validation/``, with images straight
    in it; one folder around all that may be there. A CSV has the columns ``path``, relative to the CSV, and ``label``;
    every further column is an attribute. A path may go on inside a zip: ``faces.zip/copy``.

    An image that cannot be read, such as a link to nothing, is listed all the same: it is counted, with the reason,
    when it is read. Files outside the class folders that are no images are ignored and counted.

    Args:
        name: what ``evaluate.extra`` calls it.
        path: of the folder, .zip or .csv.
        classes: names in label order.

    Raises:
        DataError: there is no such set, a folder in it cannot be listed, or it is laid out otherwise.
        ArchiveError: it is no whole zip, or one whose images together are too large.
    """
    where = f"evaluate.extra.{name}: {path}"
    path, folder = split_archive_path(path)
    if path.is_dir():
        try:
            return _place_all(where, name, list_folder(path), classes)
        except SourceError as error:
            raise DataError(f"evaluate.extra.{name}: {error}") from None
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(
            f"{where}: no such folder or file; check the path in params.yaml, or take the set out"
        ) from None
    except OSError as error:
        raise DataError(f"{where}: cannot be read ({error.strerror}); check its permissions") from None
    suffix = find_suffix(path.name)
    if not path.is_file():  # a pipe would be waited for
        raise DataError(f"{where}: is neither a folder nor a regular file; give one of them")
    if suffix == ".csv" and not folder:
        return _read_table(where, name, path, classes)
    if suffix != ".zip" and suffix not in OTHER_ARCHIVES:
        raise DataError(f"{where}: is neither a folder nor a .zip nor a .csv; give one of them")
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(path))
        placed = _place_all(where, name, list_archive(archive, folder), classes)
        return replace(placed, _open=stack.pop_all())


def _place_all(where: str, name: str, contents: Contents, classes: Sequence[str]) -> LabelledSet:
    parts = _find_images(contents.list_tidy(), classes)
    collision = find_collision(parts)
    if collision:
        both = list_first(collision).replace(", ", " and ")
        raise DataError(f"{where}: {both} would both become {escape_name(collision[0])}; rename one of them")
    images = []
    for path, within in parts.items():
        inner = within[1:] if within and within[0] in RAW_SPLITS else within
        if len(inner) != 2 or inner[0] not in classes:
            raise DataError(
                f"{where}: {list_first([path])} lies in no class folder; images must lie straight in "
                f"{'/ or '.join(classes)}/, and these at the top or in {'/ or '.join(RAW_SPLITS)}/"
            )
        images.append(LabelledImage(escape_name(path), classes.index(inner[0]), (), partial(contents.read, path)))
    if not images:
        raise DataError(f"{where}: holds no image; it needs folders {' and '.join(classes)}")
    return LabelledSet(name, images, ignored=len(contents.problems) - len(images))


def _find_images(names: Sequence[str], classes: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the parts of each name below the one folder around everything, if there is such; no bystanders."""
    parts = {name: tuple(name.split("/")) for name in names}
    in_class = {name for name, one in parts.items() if len(one) > 1 and one[-2] in classes}
    wanted = {name: one for name, one in parts.items() if name in in_class or has_image_suffix(name)}
    tops = {one[0] for one in wanted.values()}
    if len(tops) == 1 and not tops & {*classes, *RAW_SPLITS}:  # as zips often have
        return {name: one[1:] for name, one in wanted.items()}
    return wanted


def _read_table(where: str, name: str, path: Path, classes: Sequence[str]) -> LabelledSet:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            missing = [column for column in _REQUIRED if column not in header]
            if missing or len(set(header)) < len(header) or "" in header:
                raise DataError(
                    f"{where}: line 1 names the columns {','.join(header)[:120]!r}; it needs path and label, each "
                    "column once and with a name"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: not a readable CSV file in UTF-8 ({error}); save it again") from None
    columns = [column for column in header if column not in _REQUIRED]
    left_out = tuple(one for one in columns if len({row[one] for _, row in rows}) > MOST_VALUES)
    attributes = tuple(one for one in columns if one not in left_out)
    images, lines = [], dict[str, int]()
    for line, row in rows:
        _check_row(where, line, row, classes, lines)
        values = tuple(row[one].strip() or "(empty)" for one in attributes)
        images.append(
            LabelledImage(row["path"], classes.index(row["label"]), values, _reader(path.parent, row["path"]))
        )
    if not images:
        raise DataError(f"{where}: holds no row below its header; list at least an image of each class")
    return LabelledSet(name, images, attributes, left_out)


def _check_row(
    where: str, line: int, row: Mapping[str | None, object], classes: Sequence[str], lines: dict[str, int]
) -> None:
    if None in row or None in row.values():
        raise DataError(f"{where}: line {line} has more or fewer cells than the header; correct that line")
    if row["label"] not in classes:
        raise DataError(f"{where}: line {line} has the label {row['label']!r}; the labels are {' and '.join(classes)}")
    path = str(row["path"])
    if not path or "\0" in path:
        raise DataError(f"{where}: line {line} has the path {path!r}; give that of an image, relative to the CSV")
    if path in lines:
        raise DataError(f"{where}: line {line} lists {path}, as line {lines[path]} does; list each image once")
    lines[path] = line


def _locate(folder: Path, given: str) -> Path:
    """Return the file that a CSV names; one written on Windows has backslashes between folders."""
    path = folder / given
    return path if "\\" not in given or path.exists() else folder / given.replace("\\", "/")


def _reader(folder: Path, given: str) -> Callable[[], bytes]:
    return lambda: read_file(_locate(folder, given))

"""Labelled images in a folder, a zip or a CSV file: the one reader of ``source`` and ``evaluate.extra``."""

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from zipfile import is_zipfile

from gender_classifier.data.archive import Archive, split_archive_path
from gender_classifier.data.class_folders import Rules, check_complete, find_images
from gender_classifier.data.contents import list_archive, list_folder
from gender_classifier.data.file_names import OTHER_ARCHIVES, escape_name, find_suffix
from gender_classifier.data.folders import read_file
from gender_classifier.errors import SourceError

MOST_VALUES = 50
"""A column with more distinct values, such as a person's number, is no attribute to tabulate."""

_REQUIRED = ("path", "label")


@dataclass(frozen=True)
class LabelledImage:
    """An image, not yet read.

    Attributes:
        name: path relative to the source, escaped.
        label: index of its class.
        split: folder of the split, such as ``Training``; an empty text without one.
        attributes: values, in the order of the source's ``attributes``.
        read: returns the file's bytes; raises OSError or ArchiveError.
        group: value of the column ``group``, such as a person's number; an empty text without it.
    """

    name: str
    label: int
    split: str
    attributes: tuple[str, ...]
    read: Callable[[], bytes]
    group: str = ""


@dataclass
class LabelledSource:
    """A source opened for reading.

    Attributes:
        name: of the param that gives its path, for messages.
        kind: ``folder``, ``zip`` or ``csv``.
        images: sorted by name; those of a CSV in its order.
        attributes: names of the columns that describe images.
        left_out: columns with more than :data:`MOST_VALUES` values.
        ignored: number of other files.
        remarks: what a user should know of these, a line each.
    """

    name: str
    kind: str
    images: Sequence[LabelledImage]
    attributes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    ignored: int = 0
    remarks: tuple[str, ...] = ()
    _files: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> "LabelledSource":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the zip, if it is one."""
        self._files.close()


def open_source(path: str, rules: Rules) -> LabelledSource:
    """List the images of a source; none is read yet.

    A folder or zip holds class folders with images straight in them, in ``Training/`` and ``Validation/`` or, where
    ``rules`` allow it, at the top; other folders may be around all that. Where several folders hold a data set, the
    path must name one, also inside a zip (``faces.zip/copy``); ``faces.zip/.`` names the one at the top.

    A CSV has the columns ``path``, relative to the CSV, and ``label``; every further column is an attribute. Its images
    are in no split.

    Other files are ignored and counted.

    Args:
        path: of the folder, zip or CSV.
        rules: what is refused.

    Raises:
        SourceError: there is no such source, it cannot be listed, or ``rules`` refuse it.
        ArchiveError: it is no whole zip, or one of its images must not be read and ``rules`` refuse that.
    """
    file_path, folder = split_archive_path(Path(path))
    where = f"{rules.name}: {file_path / folder}"
    try:
        file_path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(f"{where}: no such folder or file; {rules.if_missing}") from None
    except OSError as error:
        raise SourceError(f"{where}: cannot be read ({error.strerror}); check its permissions") from None
    if not file_path.is_dir() and not file_path.is_file():  # a pipe would be waited for
        raise SourceError(f"{where}: is neither a folder nor a regular file; give one of them")
    if find_suffix(file_path.name) == ".csv" and not folder:
        source = _read_table(where, file_path, rules)
    else:
        source = _open_folder(where, file_path, folder, rules, at_top=path.rstrip("/").endswith("/."))
    if rules.needs_splits:
        check_complete(((image.split, rules.classes[image.label]) for image in source.images), where, rules)
    return source


def _open_folder(where: str, path: Path, folder: str, rules: Rules, *, at_top: bool) -> LabelledSource:
    with ExitStack() as stack:
        if path.is_dir():
            kind, contents = "folder", list_folder(path, where)
        elif find_suffix(path.name) in ("", ".zip", *OTHER_ARCHIVES) or is_zipfile(path):
            kind, contents = "zip", list_archive(stack.enter_context(Archive(path)), folder)
        else:
            raise SourceError(f"{where}: is neither a folder nor a .zip nor a .csv; give one of them")
        found = find_images(contents.list_tidy(), contents.path, rules, at_top=at_top)
        if rules.refuses_unreadable:
            contents.check(found)
        images = [
            LabelledImage(escape_name(name), rules.classes.index(label), split, (), partial(contents.read, name))
            for name, (split, label) in found.items()
        ]
        ignored = len(contents.problems) - len(images)
        return LabelledSource(
            rules.name, kind, images, ignored=ignored, remarks=contents.list_remarks(found), _files=stack.pop_all()
        )


def _read_table(where: str, path: Path, rules: Rules) -> LabelledSource:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            if not set(_REQUIRED) <= set(header) or len(set(header)) < len(header) or "" in header:
                raise SourceError(
                    f"{where}: line 1 names the columns {','.join(header)[:120]!r}; it needs path and label, each "
                    "column once and with a name"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where}: not a readable CSV file in UTF-8 ({error}); save it again") from None
    columns = [column for column in header if column not in _REQUIRED]
    left_out = tuple(column for column in columns if len({row[column] for _, row in rows}) > MOST_VALUES)
    attributes = tuple(column for column in columns if column not in left_out)
    images, lines = [], dict[str, int]()
    for line, row in rows:
        if None in row or None in row.values():
            raise SourceError(f"{where}: line {line} has more or fewer cells than the header; correct that line")
        name, label = row["path"], row["label"]
        if label not in rules.classes:
            raise SourceError(
                f"{where}: line {line} has the label {label!r}; the labels are {' and '.join(rules.classes)}"
            )
        if not name or "\0" in name:
            raise SourceError(f"{where}: line {line} has the path {name!r}; give that of an image, relative to the CSV")
        if name in lines:
            raise SourceError(f"{where}: line {line} lists {name}, as line {lines[name]} does; list each image once")
        lines[name] = line
        values = tuple(row[column].strip() or "(empty)" for column in attributes)
        read = partial(_read_listed, path.parent, name)
        group = row.get("group", "").strip()
        images.append(LabelledImage(name, rules.classes.index(label), "", values, read, group))
    if not images:
        raise SourceError(f"{where}: holds no row below its header; list at least an image of each class")
    return LabelledSource(rules.name, "csv", images, attributes, left_out)


def _read_listed(folder: Path, name: str) -> bytes:
    """Read a file that a CSV names; a CSV written on Windows has backslashes between folders."""
    path = folder / name
    return read_file(path if "\\" not in name or path.exists() else folder / name.replace("\\", "/"))

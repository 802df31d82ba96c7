"""Labelled images in a folder, a zip or a CSV file: the one reader of ``source`` and ``evaluate.extra``."""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from gender_classifier.data.archive import Archive, split_archive_path
from gender_classifier.data.contents import list_archive, list_folder
from gender_classifier.data.file_names import OTHER_ARCHIVES, escape_name, find_suffix
from gender_classifier.data.folders import read_file
from gender_classifier.data.layouts.class_folders import Rules, check_complete, find_images
from gender_classifier.data.layouts.entry import Entry
from gender_classifier.data.naming import ClassNames, map_classes, map_splits
from gender_classifier.errors import SourceError

MOST_VALUES = 50
"""A column with more distinct values, such as a person's number, is no attribute to tabulate."""

_REQUIRED = ("path", "label")


@dataclass(frozen=True)
class LabelledImage:
    """An image, not yet read.

    Attributes:
        name: path relative to the source, escaped.
        member: path relative to the data set in the source, unique.
        label: index of its class.
        split: ``train``, ``val`` or ``test``; for rules with ``fixed`` as in the source, an empty text without one.
        group: the person; an empty text if the source does not say.
        attributes: values, in the order of the source's ``attributes``.
        read: returns the file's bytes; raises OSError or ArchiveError.
    """

    name: str
    member: str
    label: int
    split: str
    group: str
    attributes: tuple[str, ...]
    read: Callable[[], bytes]


@dataclass
class LabelledSource:
    """A source opened for reading.

    Attributes:
        name: of the param that gives its path, for messages.
        kind: ``folder``, ``zip`` or ``csv``.
        images: sorted by name; those of a CSV in its order.
        classes: in label order, to the names in the source that mean them.
        attributes: names of the columns that describe images.
        left_out: columns with more than :data:`MOST_VALUES` values.
        ignored: number of other files.
        remarks: what a user should know of these, a line each.
    """

    name: str
    kind: str
    images: Sequence[LabelledImage]
    classes: ClassNames
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

    A folder or zip holds class folders, in split folders or without; other folders may be around all that
    (:func:`~gender_classifier.data.class_folders.find_images`). Where several folders hold a data set, the path must
    name one, also inside a zip (``faces.zip/copy``); ``faces.zip/.`` names the one at the top.

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
    if not rules.fixed:
        labels = list(source.classes)
        check_complete(((image.split, labels[image.label]) for image in source.images), where)
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
            contents.check(entry.path for entry in found)
        return _build(
            kind,
            found,
            [partial(contents.read, entry.path) for entry in found],
            where,
            rules,
            ignored=len(contents.problems) - len(found),
            remarks=contents.list_remarks(entry.path for entry in found),
            _files=stack.pop_all(),
        )


def _build(
    kind: str, found: Sequence[Entry], readers: Sequence[Callable[[], bytes]], where: str, rules: Rules, **about: Any
) -> LabelledSource:
    """Turn what a layout has found into a source: decide classes, labels and splits."""
    if rules.fixed:
        names = {entry.label: rules.find_class(entry.label) for entry in found}
        order, splits = list(rules.classes or ()), {entry.split: entry.split for entry in found}
    else:
        names = map_classes(Counter(entry.label for entry in found), rules.classes, where)
        order, splits = list(dict.fromkeys(names.values())), map_splits({entry.split for entry in found}, where)
    labels = {name: order.index(label) for name, label in names.items()}
    images = [
        LabelledImage(
            escape_name(entry.path),
            escape_name(entry.member),
            labels[entry.label],
            splits[entry.split],
            entry.group,
            entry.attributes,
            read,
        )
        for entry, read in zip(found, readers, strict=True)
    ]
    classes = {label: [name for name in names if names[name] == label] for label in order}
    return LabelledSource(rules.name, kind, images, classes, **about)


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
    found, lines = list[Entry](), dict[str, int]()
    for line, row in rows:
        if None in row or None in row.values():
            raise SourceError(f"{where}: line {line} has more or fewer cells than the header; correct that line")
        name, label = row["path"], row["label"]
        if rules.fixed and not rules.find_class(label):
            raise SourceError(
                f"{where}: line {line} has the label {label!r}; the labels are {' and '.join(rules.classes or ())}"
            )
        if not name or "\0" in name:
            raise SourceError(f"{where}: line {line} has the path {name!r}; give that of an image, relative to the CSV")
        if name in lines:
            raise SourceError(f"{where}: line {line} lists {name}, as line {lines[name]} does; list each image once")
        lines[name] = line
        values = tuple(row[column].strip() or "(empty)" for column in attributes)
        found.append(Entry(name, name, label, attributes=values))
    if not found:
        raise SourceError(f"{where}: holds no row below its header; list at least an image of each class")
    readers = [partial(_read_listed, path.parent, entry.path) for entry in found]
    return _build("csv", found, readers, where, rules, attributes=attributes, left_out=left_out)


def _read_listed(folder: Path, name: str) -> bytes:
    """Read a file that a CSV names; a CSV written on Windows has backslashes between folders."""
    path = folder / name
    return read_file(path if "\\" not in name or path.exists() else folder / name.replace("\\", "/"))

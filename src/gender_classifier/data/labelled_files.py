"""Labelled images in a folder, a zip or a CSV file: the one reader of ``source`` and ``evaluate.extra``."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from gender_classifier.data.archive import Archive, split_archive_path
from gender_classifier.data.contents import Contents, list_archive, list_folder
from gender_classifier.data.file_names import OTHER_ARCHIVES, escape_name, find_collision, find_suffix, list_first
from gender_classifier.data.folders import read_file
from gender_classifier.data.layouts import celeba, fairface, utkface
from gender_classifier.data.layouts.class_folders import Rules, check_complete, find_images
from gender_classifier.data.layouts.entry import Found
from gender_classifier.data.layouts.files import Files, ListedFiles, NamedFiles
from gender_classifier.data.layouts.naming import ClassNames, map_classes, map_splits
from gender_classifier.data.layouts.tables import TABLE_SUFFIXES, Table, find_listed, is_table, read_table
from gender_classifier.data.raw_table import MOST_VALUES
from gender_classifier.errors import SourceError

RESERVED = frozenset({"member", "path", "label", "split", "group", "sha256"})
"""Columns of ``data/raw.csv`` and ``data/processed/images.csv``, which no attribute may be called."""


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
        layout: in which the images were found, for people.
        attributes: names of the columns that describe images.
        left_out: of rules with ``fixed``: columns with more than ``MOST_VALUES`` values.
        ignored: number of other files.
        remarks: what a user should know of these, a line each.
    """

    name: str
    kind: str
    images: Sequence[LabelledImage]
    classes: ClassNames
    layout: str = ""
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
    (:func:`~gender_classifier.data.layouts.class_folders.find_images`). Where several folders hold a data set, the
    path must name one, also inside a zip (``faces.zip/copy``); ``faces.zip/.`` names the one at the top.

    A table of labels, alone, in the folder or in the zip, decides instead of folders
    (:mod:`~gender_classifier.data.layouts.tables`).

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
    if find_suffix(file_path.name) in TABLE_SUFFIXES and not folder:
        source = _read_lone_table(where, file_path, rules)
    else:
        source = _open_folder(where, file_path, folder, rules, at_top=path.rstrip("/").endswith("/."))
    if not rules.fixed:
        labels = list(source.classes)
        check_complete(((image.split, labels[image.label]) for image in source.images), where)
    return source


def _open_folder(where: str, path: Path, folder: str, rules: Rules, *, at_top: bool) -> LabelledSource:
    with ExitStack() as stack:
        table = ""
        if path.is_dir():
            kind, contents = "folder", list_folder(path, where)
        elif find_suffix(path.name) in ("", ".zip", *OTHER_ARCHIVES) or is_zipfile(path):
            archive = stack.enter_context(Archive(path))
            if find_suffix(folder) in TABLE_SUFFIXES and folder in archive.members:
                folder, _, table = folder.rpartition("/")
            kind, contents = "zip", list_archive(archive, folder)
        else:
            raise SourceError(f"{where}: is neither a folder nor a .zip nor a .csv; give one of them")
        found = _find(contents, rules, table, at_top=at_top)
        taken = [entry.path for entry in found.entries]
        if rules.refuses_unreadable:
            contents.check(taken)
        files = ListedFiles(contents.problems, "", contents.read)
        others = "that the table does not list" if found.tables else "outside the class folders"
        return _build(
            kind,
            found,
            files,
            where,
            rules,
            ignored=len(contents.problems) - len(set(taken) & set(contents.problems)) - len(found.tables),
            remarks=contents.list_remarks(taken, others),
            _files=stack.pop_all(),
        )


def _find(contents: Contents, rules: Rules, table: str, *, at_top: bool) -> Found:
    """Find the images of a folder or zip in the first layout that fits."""
    names = contents.list_tidy()
    where = f"{rules.name}: {contents.path}"
    published = "" if table or rules.columns else _choose_published(names, rules, where)
    if published == "celeba":
        return celeba.find(names, contents.read, where, refuses_missing=rules.refuses_unreadable)
    if published == "fairface":
        return fairface.find(names, contents.read, where, refuses_missing=rules.refuses_unreadable)
    if published == "utkface":
        return utkface.find(names, where)
    tables = [table] if table else _list_tables(contents, rules) if rules.format in ("auto", "table") else []
    if len(tables) > 1:
        raise SourceError(
            f"{where}: holds {len(tables)} tables of labels; give the path of one: "
            f"{list_first(f'{contents.path}/{name}' for name in tables)}"
        )
    for name in tables:
        read = read_table(contents.read(name), rules.columns, f"{where}/{name}")
        files = ListedFiles(names, name.rpartition("/")[0], contents.read)
        return _list_rows(read, files, name, rules)
    if rules.format == "table" or (rules.columns and rules.format == "auto"):
        raise SourceError(f"{where}: holds no table of labels, a .csv or .tsv with columns of paths and labels; add it")
    return Found("class folders", find_images(names, contents.path, rules, at_top=at_top))


_PUBLISHED = {"celeba": celeba.fits, "fairface": fairface.fits, "utkface": utkface.fits}


def _choose_published(names: Sequence[str], rules: Rules, where: str) -> str:
    """Return the published form that a source has or must have; an empty text for none."""
    if rules.format == "auto":
        return next((form for form, fits in _PUBLISHED.items() if fits(names)), "")
    if rules.format not in _PUBLISHED:
        return ""
    if not _PUBLISHED[rules.format](names):
        raise SourceError(f"{where}: is not laid out as {rules.format} is published; check ingest.format")
    return rules.format


def _list_tables(contents: Contents, rules: Rules) -> list[str]:
    """Return the tables of a folder or zip that name images and labels."""
    tables = [name for name in contents.list_tidy() if find_suffix(name) in TABLE_SUFFIXES]
    return [name for name in tables if not contents.problems[name] and is_table(contents.read(name), rules.columns)]


def _list_rows(table: Table, files: Files, name: str, rules: Rules) -> Found:
    found = find_listed(table, files, name=name, refuses_missing=rules.refuses_unreadable)
    for (line, _), entry in zip(table.rows, found.entries, strict=True):
        if rules.fixed and not rules.find_class(entry.label):
            known = " and ".join(rules.classes or ())
            raise SourceError(f"{table.where}: line {line} has the label {entry.label!r}; the labels are {known}")
    return found


def _read_lone_table(where: str, path: Path, rules: Rules) -> LabelledSource:
    """Read a table given by its path; only the files that it names are looked at."""
    try:
        data = read_file(path)
    except OSError as error:
        raise SourceError(f"{where}: cannot be read ({error.strerror}); check its permissions") from None
    files = NamedFiles(path.parent, within=not rules.fixed)
    table = read_table(data, rules.columns, where)
    return _build("csv", _list_rows(table, files, path.name, rules), files, where, rules)


def _build(kind: str, found: Found, files: Files, where: str, rules: Rules, **about: Any) -> LabelledSource:
    """Turn what a layout has found into a source: decide classes, labels, splits and attributes."""
    counts = Counter(entry.label for entry in found.entries)
    if rules.fixed:
        names = {label: rules.find_class(label) for label in counts}
        if unknown := sorted(label for label, meant in names.items() if not meant):
            known = " and ".join(rules.classes or ())
            raise SourceError(f"{where}: has the label {list_first(map(repr, unknown))}; the labels are {known}")
        order, splits = list(rules.classes or ()), {entry.split: entry.split for entry in found.entries}
    else:
        names = map_classes(counts, rules.classes, where)
        order, splits = list(dict.fromkeys(names.values())), map_splits({entry.split for entry in found.entries}, where)
        if taken := sorted(RESERVED & set(found.attributes)):
            raise SourceError(f"{where}: has a column {taken[0]!r} of another meaning than in data/raw.csv; rename it")
    left_out = _find_left_out(found) if rules.fixed else ()
    kept = [place for place, name in enumerate(found.attributes) if name not in left_out]
    labels = {name: order.index(label) for name, label in names.items()}
    images = [
        LabelledImage(
            escape_name(entry.path),
            escape_name(entry.member),
            labels[entry.label],
            splits[entry.split],
            entry.group,
            tuple(entry.attributes[place] for place in kept),
            partial(files.read, entry.path),
        )
        for entry in found.entries
    ]
    if collision := find_collision(entry.path for entry in found.entries):
        both = list_first(collision).replace(", ", " and ")
        raise SourceError(f"{where}: {both} would both become {escape_name(collision[0])}; rename one of them")
    classes = {label: [name for name in names if names[name] == label] for label in order}
    attributes = tuple(found.attributes[place] for place in kept)
    return LabelledSource(rules.name, kind, images, classes, found.layout, attributes, left_out, **about)


def _find_left_out(found: Found) -> tuple[str, ...]:
    """Return the columns with too many values to tabulate."""
    values = zip(*(entry.attributes for entry in found.entries), strict=True)
    return tuple(name for name, column in zip(found.attributes, values, strict=False) if len(set(column)) > MOST_VALUES)

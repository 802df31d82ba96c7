"""Tables of labels: CSV or TSV files with a row per image."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gender_classifier.data.file_names import list_first
from gender_classifier.data.layouts.entry import Entry, Found
from gender_classifier.data.layouts.files import Files
from gender_classifier.errors import SourceError

TABLE_SUFFIXES = (".csv", ".tsv")

COLUMNS: Mapping[str, Sequence[str]] = {
    "path": ("path", "file", "filename", "file_name", "image", "image_id"),
    "label": ("label", "class", "gender", "sex"),
    "split": ("split",),
    "group": ("group",),
}
"""Role of a column to its usual headers, in lower case. The first one wins; of the others, only one may be there."""

_REQUIRED = ("path", "label")
_DELIMITERS = ",;\t"


@dataclass(frozen=True)
class Table:
    """A table of labels.

    Attributes:
        where: begins messages.
        places: role of a column to its place.
        attributes: name of each further column to its place.
        rows: line number and cells of each row.
    """

    where: str
    places: Mapping[str, int]
    attributes: Mapping[str, int]
    rows: Sequence[tuple[int, Sequence[str]]]


def is_table(data: bytes, columns: Mapping[str, str]) -> bool:
    """Return True if the first line of a file names a column of paths and one of labels."""
    line = data.removeprefix(b"\xef\xbb\xbf").partition(b"\n")[0].decode("utf-8", "replace")
    try:
        return _find_delimiter(line, columns) is not None
    except csv.Error:
        return False


def _find_delimiter(line: str, columns: Mapping[str, str]) -> str | None:
    """Return the delimiter with which a header names the required columns, if there is one."""
    for delimiter in _DELIMITERS:
        header = _split(line, delimiter)
        if all(_list_candidates(role, header, columns) for role in _REQUIRED):
            return delimiter
    return None


def read_table(data: bytes, columns: Mapping[str, str], where: str) -> Table:
    """Read a CSV or TSV file in UTF-8, with or without a byte order mark; the delimiter is ``,``, ``;`` or a tab.

    Args:
        data: content of the file.
        columns: headers by role (:data:`COLUMNS`); roles left out have a usual header.
        where: begins messages.

    Raises:
        SourceError: it is not such a file, or lacks a column.
    """
    try:
        text = data.decode("utf-8-sig")
        delimiter = _find_delimiter(text.partition("\n")[0], columns)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or ",", strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        if delimiter is None or len(set(header)) < len(header) or "" in header:
            wanted = " and ".join(columns.get(role, role) for role in _REQUIRED)
            raise SourceError(
                f"{where}: line 1 names the columns {','.join(header)[:120]!r}; it needs {wanted}, each once and "
                "named; give other headers in ingest.columns"
            )
        places = _find_places(header, columns, where)
        rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{where}: not a readable CSV file in UTF-8 ({error}); save it again") from None
    attributes = {name: place for place, name in enumerate(header) if place not in places.values()}
    return Table(where, places, attributes, rows)


def find_listed(table: Table, files: Files, *, name: str, refuses_missing: bool) -> Found:
    """Return the images that a table lists.

    Args:
        table: the table.
        files: beside it.
        name: of the table's file.
        refuses_missing: a row without its file is an error.

    Raises:
        SourceError: a row is damaged, or names a file that another row names or that is not there.
    """
    entries, lines, missing = list[Entry](), dict[str, int](), list[str]()
    for line, cells in table.rows:
        if len(cells) != len(table.places) + len(table.attributes):
            raise SourceError(f"{table.where}: line {line} has more or fewer cells than the header; correct that line")
        given = {role: cells[place] if role == "path" else cells[place].strip() for role, place in table.places.items()}
        if not given["path"] or "\0" in given["path"]:
            raise SourceError(
                f"{table.where}: line {line} has the path {given['path']!r}; give that of an image, relative to "
                "the table"
            )
        if not given["label"]:
            raise SourceError(f"{table.where}: line {line} has no label; give one, or remove the line")
        path, problem = files.find(given["path"])
        if problem:
            missing.append(f"line {line}: {given['path']} ({problem})")
        if path in lines:
            raise SourceError(
                f"{table.where}: line {line} lists {path}, as line {lines[path]} does; list each image once"
            )
        lines[path] = line
        values = tuple(cells[place].strip() for place in table.attributes.values())
        entries.append(Entry(path, path, given["label"], given.get("split", ""), given.get("group", ""), values))
    if missing and refuses_missing:
        raise SourceError(
            f"{table.where}: {len(missing):,} of its images cannot be read: {list_first(missing)}; correct "
            "the paths, which are relative to the table"
        )
    if not entries:
        raise SourceError(f"{table.where}: holds no row below its header; list at least an image of each class")
    return Found(f"table {name}", entries, tuple(table.attributes), (name,))


def _split(line: str, delimiter: str) -> list[str]:
    return [cell.strip() for cell in next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])]


def _list_candidates(role: str, header: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    """Return the headers that may have a role; the role's own name alone if it is there."""
    if role in columns:
        return [name for name in header if name == columns[role]]
    usual = COLUMNS[role]
    found = [name for name in header if name.lower() in usual and name not in columns.values()]
    return [name for name in found if name.lower() == usual[0]] or found


def _find_places(header: Sequence[str], columns: Mapping[str, str], where: str) -> dict[str, int]:
    """Return the place of each role's column that is there."""
    places = {}
    for role in COLUMNS:
        names = _list_candidates(role, header, columns)
        if len(names) > 1:
            raise SourceError(
                f"{where}: its columns {' and '.join(names)} may each be the {role}; choose one: "
                f"-S 'ingest.columns={{{role}: {names[0]}}}'"
            )
        if not names and role in columns:
            raise SourceError(
                f"{where}: has no column {columns[role]!r}, which ingest.columns gives for the {role}; it has "
                f"{list_first(header)}"
            )
        if names:
            places[role] = header.index(names[0])
    return places

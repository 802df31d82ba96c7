"""FairFace: ``fairface_label_train.csv`` and ``fairface_label_val.csv``, with ``file,age,gender,race,service_test``.

https://github.com/joojs/fairface. There is no test split: ``val`` is the test set.
"""

from collections.abc import Callable, Sequence
from posixpath import basename

from gender_classifier.data.file_names import list_first
from gender_classifier.data.layouts.entry import Entry, Found
from gender_classifier.data.layouts.files import ListedFiles
from gender_classifier.data.layouts.tables import find_listed, read_table
from gender_classifier.errors import SourceError

_TABLES = {"fairface_label_train.csv": "train", "fairface_label_val.csv": "val"}
_COLUMNS = {"path": "file", "label": "gender"}


def fits(names: Sequence[str]) -> bool:
    """Return True if one of the tables is there."""
    return any(basename(name).lower() in _TABLES for name in names)


def find(names: Sequence[str], read: Callable[[str], bytes], where: str, *, refuses_missing: bool) -> Found:
    """Return the images of both tables, or of the one that is there.

    Raises:
        SourceError: a table is there twice or damaged, or lacks a file.
    """
    tables = [name for name in names if basename(name).lower() in _TABLES]
    if len({basename(name).lower() for name in tables}) < len(tables):
        raise SourceError(f"{where}: holds a table of FairFace twice ({list_first(tables)}); give the path of one copy")
    entries, attributes = list[Entry](), tuple[str, ...]()
    for name in tables:
        table = read_table(read(name), _COLUMNS, f"{where}/{name}")
        files = ListedFiles(names, name.rpartition("/")[0], read)
        found = find_listed(table, files, name=name, refuses_missing=refuses_missing)
        if entries and found.attributes != attributes:
            raise SourceError(f"{where}: the tables {list_first(tables)} have different columns; get the set again")
        attributes, split = found.attributes, _TABLES[basename(name).lower()]
        entries += [Entry(one.path, one.member, one.label, split, attributes=one.attributes) for one in found.entries]
    return Found("FairFace", entries, attributes, tuple(tables))

"""The images to review: those of ``data/predictions/label_issues.csv`` about which nobody has decided."""

import hashlib
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.common.paths import Layout
from gender_classifier.common.spreadsheet import read_table
from gender_classifier.data.archive import Archive
from gender_classifier.data.raw_table import read_raw_table
from gender_classifier.errors import DataError


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong.

    Attributes:
        sha256: of its file.
        path: name in the raw archive.
        split: ``train``, ``val`` or ``test``.
        label: the source's.
        suggested: the class that the model suggests.
        prob: probability that the model gives to ``label``.
    """

    sha256: str
    path: str
    split: str
    label: str
    suggested: str
    prob: float


@dataclass(frozen=True)
class Suspects:
    """Images to review, the likeliest first, and the number of those that the source has no longer, or otherwise."""

    open: list[Suspect]
    outdated: int


def load_suspects(layout: Layout, archive: Archive, classes: Container[str], decided: Container[str] = ()) -> Suspects:
    """Return the images to review; of copies of one file, the first.

    Args:
        layout: gives the paths of the tables.
        archive: the raw archive. Its images are hashed, so that a decision names the very bytes that are shown.
        classes: of the data set.
        decided: SHA-256 of the images to leave out.

    Raises:
        DataError: a table is missing or not readable.
        ArchiveError: an image is damaged.
    """
    rows = _read_rows(layout.suspects_path)
    listed = {path for _, path, *_ in rows}
    table = read_raw_table(layout.raw_table_path)
    labels = {row.member: row.label for row in table.rows if row.member in listed}
    found: dict[str, Suspect] = {}
    outdated = 0
    for split, path, label, suggested, prob in rows:
        sha256 = hashlib.sha256(archive.read(path)).hexdigest() if path in labels else ""
        if sha256 in decided:
            continue
        if labels.get(path) != label or suggested not in classes:
            outdated += 1
            continue
        found.setdefault(sha256, Suspect(sha256, path, split, label, suggested, prob))
    return Suspects(list(found.values()), outdated)


def _read_rows(path: Path) -> list[tuple[str, str, str, str, float]]:
    """Return split, path, label, suggested class and probability of each suspect."""
    columns, advice = ("split", "member", "label", "suggested", "prob_label"), "run `dvc repro`"
    _, rows = read_table(path, columns, advice)
    try:
        return [
            (split, member, label, suggested, float(prob)) for _, (split, member, label, suggested, prob, *_) in rows
        ]
    except ValueError as error:
        raise DataError(f"{path}: not a table of suspects ({error}); {advice}") from None

"""The images to review: suspects or unfamiliar images that `evaluate` listed, and about which nobody has decided."""

import hashlib
from collections.abc import Container
from dataclasses import dataclass, replace

from gender_classifier.common.paths import Layout
from gender_classifier.common.spreadsheet import read_table
from gender_classifier.data.archive import Archive
from gender_classifier.data.raw_table import read_raw_table
from gender_classifier.errors import DataError


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong, or that is unlike those that the model was trained on.

    Attributes:
        sha256: of its file.
        path: name in the raw archive.
        split: ``train``, ``val`` or ``test``.
        label: the source's.
        suggested: the class that the model suggests; None for an unfamiliar image.
        prob: probability that the model gives to ``label``; None for an unfamiliar image.
        times_threshold: unfamiliarity, as a multiple of its threshold; None for a suspect.
    """

    sha256: str
    path: str
    split: str
    label: str
    suggested: str | None = None
    prob: float | None = None
    times_threshold: float | None = None


@dataclass(frozen=True)
class Suspects:
    """Images to review, the likeliest first, and the number of those that the source has no longer, or otherwise."""

    open: list[Suspect]
    outdated: int


def load_suspects(
    layout: Layout,
    archive: Archive,
    classes: Container[str],
    decided: Container[str] = (),
    *,
    is_unfamiliar: bool = False,
) -> Suspects:
    """Return the images to review; of copies of one file, the first.

    Args:
        layout: gives the paths of the tables.
        archive: the raw archive. Its images are hashed, so that a decision names the very bytes that are shown.
        classes: of the data set.
        decided: SHA-256 of the images to leave out.
        is_unfamiliar: return the unfamiliar images, not those whose labels are likely wrong.

    Raises:
        DataError: a table is missing or not readable.
        ArchiveError: an image is damaged.
    """
    suspects = _read_suspects(layout, is_unfamiliar=is_unfamiliar)
    listed = {suspect.path for suspect in suspects}
    table = read_raw_table(layout.raw_table_path)
    labels = {row.member: row.label for row in table.rows if row.member in listed}
    found: dict[str, Suspect] = {}
    outdated = 0
    for suspect in suspects:
        sha256 = hashlib.sha256(archive.read(suspect.path)).hexdigest() if suspect.path in labels else ""
        if sha256 in decided:
            continue
        if labels.get(suspect.path) != suspect.label or (suspect.suggested or suspect.label) not in classes:
            outdated += 1
            continue
        found.setdefault(sha256, replace(suspect, sha256=sha256))
    return Suspects(list(found.values()), outdated)


def _read_suspects(layout: Layout, *, is_unfamiliar: bool) -> list[Suspect]:
    """Return the rows of ``label_issues.csv`` or ``unfamiliar.csv``, as yet without SHA-256."""
    path = layout.strangers_path if is_unfamiliar else layout.suspects_path
    judged = ["times_threshold"] if is_unfamiliar else ["suggested", "prob_label"]
    advice = "run `dvc repro`"
    _, rows = read_table(path, ["split", "member", "label", *judged], advice)
    try:
        if is_unfamiliar:
            return [
                Suspect("", member, split, label, times_threshold=float(times))
                for _, (split, member, label, times, *_) in rows
            ]
        return [
            Suspect("", member, split, label, suggested, float(prob))
            for _, (split, member, label, suggested, prob, *_) in rows
        ]
    except ValueError as error:
        raise DataError(f"{path}: not a table of suspects ({error}); {advice}") from None

"""``data/corrections.csv``: decisions of people about labels, one row per image, named by the SHA-256 of its file.

Git keeps the file, so a row stays when the pipeline's outputs are made again. Rows are sorted by SHA-256: equal
decisions give equal bytes, and Git merges two people's files line by line.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from gender_classifier.common.locks import hold_lock
from gender_classifier.common.spreadsheet import read_table, write_table
from gender_classifier.errors import DataError

CORRECTION_COLUMNS = ("sha256", "path", "label_before", "label_after", "decided_at")

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Correction:
    """One decision.

    Attributes:
        sha256: of the image's file, as hex digits; all copies of the file share the decision.
        path: name in the raw archive, for people.
        label_before: the source's label.
        label_after: the right label; equal to ``label_before`` if that is right; empty to leave the image out.
        decided_at: ISO 8601 with a time zone.
        line: in the file, for messages; 0 if the decision was not read from one.
    """

    sha256: str
    path: str
    label_before: str
    label_after: str
    decided_at: str
    line: int = field(default=0, compare=False)

    @property
    def is_removal(self) -> bool:
        """True if the image is to be left out."""
        return not self.label_after

    @property
    def time(self) -> datetime:
        """``decided_at`` as a time."""
        return datetime.fromisoformat(self.decided_at)

    def describe(self) -> str:
        """Return the decision in words."""
        if self.is_removal:
            return "removal"
        return f"{self.label_before!r} kept" if self.label_after == self.label_before else f"{self.label_after!r}"

    def agrees(self, other: "Correction") -> bool:
        """Return True if both say the same about the same label."""
        return (self.label_before, self.label_after) == (other.label_before, other.label_after)


Corrections = Mapping[str, Correction]
"""SHA-256 to decision."""


@dataclass(frozen=True)
class Disagreement:
    """Two decisions about one image, of which the later was ``kept``."""

    kept: Correction
    dropped: Correction


def now() -> str:
    """Return the time as ``decided_at`` has it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_corrections(path: Path) -> dict[str, Correction]:
    """Read the decisions.

    Raises:
        DataError: the file is missing, or a line is not a decision or repeats an image.
    """
    # Restoring a damaged file would lose what was decided since it was committed.
    advice = (
        "correct the line, or remove it" if path.exists() else f"check the path, or restore it: git checkout {path}"
    )
    names, rows = read_table(path, CORRECTION_COLUMNS, advice)
    if names:
        raise DataError(f"{path}: line 1 has the column {names[0]!r} besides {','.join(CORRECTION_COLUMNS)}; {advice}")
    found: dict[str, Correction] = {}
    for line, cells in rows:
        correction = _parse_row(path, line, cells)
        if first := found.get(correction.sha256):
            raise DataError(
                f"{path}: line {line} repeats the image of line {first.line} ({first.path!r}); keep one of them"
            )
        found[correction.sha256] = correction
    return found


def write_corrections(path: Path, corrections: Iterable[Correction]) -> None:
    """Write the decisions by SHA-256, atomically and through to the disk."""
    rows = sorted(corrections, key=lambda correction: correction.sha256)
    write_table(path, CORRECTION_COLUMNS, ([getattr(row, name) for name in CORRECTION_COLUMNS] for row in rows))


@contextmanager
def edit_corrections(path: Path) -> Iterator[dict[str, Correction]]:
    """Yield the decisions to be changed in place; write them when the block ends without an error.

    Other processes that edit the file wait.

    Raises:
        DataError: see :func:`read_corrections`.
        LockError: the file's folder cannot be written or locked.
    """
    with hold_lock(path.with_name(f".{path.name}.lock")):
        corrections = read_corrections(path)
        before = dict(corrections)
        yield corrections
        if corrections != before:
            write_corrections(path, corrections.values())


def merge_corrections(first: Corrections, second: Corrections) -> tuple[dict[str, Correction], list[Disagreement]]:
    """Return the decisions of both, and those on which they disagree.

    Of two decisions about one image, the later is kept. The result does not depend on the order of the two.
    """
    merged, disagreements = dict(first), list[Disagreement]()
    for sha256, other in second.items():
        mine = merged.setdefault(sha256, other)
        dropped, kept = sorted((mine, other), key=_rank)
        merged[sha256] = kept
        if not kept.agrees(dropped):
            disagreements.append(Disagreement(kept, dropped))
    return merged, disagreements


def _rank(correction: Correction) -> tuple[object, ...]:
    """Return a key by which the later decision comes last; the texts decide between equal times."""
    return correction.time, *(getattr(correction, name) for name in CORRECTION_COLUMNS)


def _parse_row(path: Path, line: int, cells: list[str]) -> Correction:
    where = f"{path}: line {line}"
    sha256, member, before, after, decided_at = cells
    correction = Correction(sha256, member, before, after, decided_at, line)
    if not _SHA256.fullmatch(correction.sha256):
        raise DataError(f"{where}: sha256 is {correction.sha256[:80]!r}, not 64 hex digits; correct or remove it")
    if not correction.label_before:
        raise DataError(f"{where}: label_before is empty; enter the source's label")
    try:
        has_zone = correction.time.tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        raise DataError(
            f"{where}: decided_at is {correction.decided_at[:80]!r}; enter a time such as 2026-01-31T09:30:00Z"
        )
    return correction

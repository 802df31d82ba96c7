"""Apply people's decisions about labels (``data/corrections.csv``) to the images of the source."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gender_classifier.data.corrections import Correction, Corrections
from gender_classifier.data.file_names import list_first
from gender_classifier.data.manifest import RELABELLED, REMOVED, Record
from gender_classifier.errors import DataError


@dataclass(frozen=True)
class Decisions:
    """Numbers of decisions: labels changed, images removed, labels found right, and those of images not held here."""

    relabelled: int
    removed: int
    kept: int
    elsewhere: int

    def tell(self, path: Path) -> str:
        """Return one line about the file ``path``."""
        others = f"; images that this source does not hold: {self.elsewhere:,}" if self.elsewhere else ""
        return (
            f"{path.name}: labels changed: {self.relabelled:,}, found right: {self.kept:,}, images removed: "
            f"{self.removed:,}{others}"
        )


def check_corrections(records: Sequence[Record], corrections: Corrections, path: Path) -> Decisions:
    """Compare the decisions with the source, and count them.

    Args:
        records: of all images, with the source's labels.
        corrections: the decisions.
        path: where they were read, for messages.

    Raises:
        DataError: a decision is about another label than the source's, or for a class that the source lacks. Decisions
            about images that the source does not hold are only counted.
    """
    labels: dict[str, set[str]] = {}
    for record in records:
        if record.sha256 in corrections:
            labels.setdefault(record.sha256, set()).add(record.label)
    classes = {record.label for record in records}
    held = [correction for correction in corrections.values() if correction.sha256 in labels]
    for correction in held:
        _check(correction, labels[correction.sha256], classes, path)
    removed = sum(correction.is_removal for correction in held)
    kept = sum(correction.label_after == correction.label_before for correction in held)
    return Decisions(len(held) - removed - kept, removed, kept, len(corrections) - len(held))


def relabel(judged: dict[str, Record], corrections: Corrections) -> None:
    """Give the images that decisions are about the right label; all copies of a file get the same."""
    for member, record in judged.items():
        correction = corrections.get(record.sha256)
        if correction and not correction.is_removal and record.label != correction.label_after:
            reason = RELABELLED if record.status == "ok" else record.reason
            judged[member] = replace(record, label=correction.label_after, reason=reason)


def remove(judged: dict[str, Record], corrections: Corrections) -> None:
    """Reject the images that decisions remove; those rejected already keep their reason."""
    for member, record in judged.items():
        correction = corrections.get(record.sha256)
        if correction and correction.is_removal and record.status == "ok":
            judged[member] = replace(record, status="rejected", reason=REMOVED)


def _check(correction: Correction, found: set[str], classes: set[str], path: Path) -> None:
    where = f"{path}: line {correction.line} ({correction.path!r})"
    if correction.label_before not in found:  # copies of one file may have several labels
        raise DataError(
            f"{where}: label_before is {correction.label_before!r}, but the source's label is "
            f"{list_first(sorted(found))}; review the image again, or remove the line"
        )
    if correction.label_after not in (*classes, ""):
        raise DataError(
            f"{where}: label_after is {correction.label_after!r}, which is no class of the source; the classes are "
            f"{list_first(sorted(classes))}"
        )

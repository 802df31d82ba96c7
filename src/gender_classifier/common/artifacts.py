"""What a stage's room returns: the content of a file, where it goes, and where MLflow shows it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from gender_classifier.common.figures import Figure


@dataclass(frozen=True)
class Table:
    """A CSV file's header and rows."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]


@dataclass(frozen=True)
class Artifact:
    """One file of a stage: ``path`` relative to the project's root, and ``mirror``, its folder in the MLflow run.

    Of the content, a mapping becomes JSON, a table CSV and a figure PNG; text and bytes are written as they are.

    An empty ``mirror`` is the run's top folder, whose images MLflow previews beside those of other runs; None keeps
    the file out of MLflow.
    """

    path: str
    content: Mapping[str, Any] | Table | Figure | str | bytes
    mirror: str | None = None


class Run(Protocol):
    """A tracked run as the rooms see it; they know nothing of MLflow."""

    run_id: str
    experiment: str

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0, timestamp: int | None = None) -> None:
        """Log finite metrics at a step (the epoch, for curves)."""

    def log_artifact(self, path: Path, folder: str | None = None) -> None:
        """Upload a file."""

    def log_dataset(self, name: str, digest: str, context: str, profile: Mapping[str, object]) -> None:
        """Link the run to the data it used."""

    def set_tags(self, tags: Mapping[str, object]) -> None:
        """Set tags."""


def tabulate(kind: type[DataclassInstance], rows: Iterable[DataclassInstance]) -> Table:
    """Return a table with a column for each field of a dataclass, and a row for each instance."""
    return Table([field.name for field in fields(kind)], (list(asdict(row).values()) for row in rows))

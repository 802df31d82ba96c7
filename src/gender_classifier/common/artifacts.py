"""Artifacts: the files that a stage's room returns, with their content, path and place in the MLflow run."""

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
    """Header and rows of a CSV file."""

    header: Sequence[str]
    rows: Iterable[Sequence[object]]


@dataclass(frozen=True)
class Artifact:
    """A file of a stage.

    Attributes:
        path: relative to the project's root.
        content: a mapping is written as JSON, a table as CSV, a figure as PNG; text and bytes as they are.
        mirror: folder in the MLflow run, or None to keep the file out of it. The top folder, an empty text, is where
            MLflow previews images beside those of other runs.
    """

    path: str
    content: Mapping[str, Any] | Table | Figure | str | bytes
    mirror: str | None = None


class Run(Protocol):
    """Interface of a tracked run, so that rooms need not import MLflow."""

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

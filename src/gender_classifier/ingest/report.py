"""The files that describe a snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from gender_classifier.common.artifacts import Artifact
from gender_classifier.ingest.sources import Snapshot


def describe_snapshot(snapshot: Snapshot) -> Iterator[Artifact]:
    """Yield the snapshot's description and its metrics file."""
    yield Artifact("data/raw.json", asdict(snapshot), "")
    yield Artifact("metrics/ingest.json", {"num_raw": snapshot.num_images})

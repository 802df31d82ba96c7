"""Files that describe a snapshot."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

from gender_classifier.common.artifacts import Artifact
from gender_classifier.data.file_names import describe_value
from gender_classifier.data.layouts.naming import ClassNames
from gender_classifier.ingest.sources import Snapshot


def describe_classes(classes: ClassNames, counts: Mapping[str, int]) -> str:
    """Return one line: each class, its number of images, and the names in the source that mean it."""
    totals = {label: sum(count for key, count in counts.items() if key.partition("/")[2] == label) for label in classes}
    return ", ".join(f"{label} = {' | '.join(names)} ({totals[label]:,})" for label, names in classes.items())


def describe_snapshot(snapshot: Snapshot) -> Iterator[Artifact]:
    """Yield the snapshot's description and its metrics file."""
    # The file leaves this machine, by the DVC remote too: keep only the last part of a full path.
    described = replace(snapshot, source=describe_value(snapshot.source))
    yield Artifact("data/raw.json", asdict(described), "")
    yield Artifact("metrics/ingest.json", {"num_raw": snapshot.num_images})

"""Files that describe the splits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gender_classifier.common.artifacts import Artifact, Table
from gender_classifier.data.manifest import Record
from gender_classifier.data.raw_table import IMAGE_COLUMNS, RawTable
from gender_classifier.metrics.histograms import PIXEL_STATISTICS, SIZE_STATISTICS, start_histogram, to_jsonable
from gender_classifier.preprocess.figures import split_balance


def describe_splits(
    splits: Mapping[str, Sequence[Record]],
    statistics: Mapping[str, Sequence[float]],
    classes: Sequence[str],
    table: RawTable,
    groups: Mapping[str, str],
) -> Iterator[Artifact]:
    """Yield the table of images, the metrics file, the figure, and the histograms for ``gender-classifier monitor``.

    Args:
        splits: records of each split.
        statistics: a value of each statistic for each training image.
        classes: names in label order.
        table: what the source says about each image.
        groups: member to the name of its group, ``""`` for none.
    """
    yield Artifact("data/processed/images.csv", list_images(splits, table, groups))
    reference = {name: start_histogram(name, "train") for name in (*SIZE_STATISTICS, *PIXEL_STATISTICS)}
    for name, histogram in reference.items():
        histogram.add(statistics[name])
    yield Artifact("data/processed/reference.json", to_jsonable(reference))
    yield Artifact("metrics/preprocess.json", {f"num_{name}": len(records) for name, records in splits.items()})
    counts = {name: Counter(record.label for record in records) for name, records in splits.items()}
    balance = {name: {label: found[label] for label in classes} for name, found in counts.items()}
    yield Artifact("metrics/figures/preprocess/split_balance.png", split_balance(balance), "")


def list_images(splits: Mapping[str, Sequence[Record]], table: RawTable, groups: Mapping[str, str]) -> Table:
    """Return a row for every image kept, in the order of ``table``, with its final split, its group and attributes."""
    kept = {record.member: (name, record) for name, records in splits.items() for record in records}

    def list_rows() -> Iterator[tuple[str, ...]]:
        for row in table.rows:
            if row.member in kept:
                split, record = kept[row.member]
                yield row.member, record.label, split, groups[row.member], record.sha256, *row.attributes

    return Table((*IMAGE_COLUMNS, *table.attributes), list_rows())

"""Files that describe the splits."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from gender_classifier.common.artifacts import Artifact
from gender_classifier.data.manifest import Record
from gender_classifier.data.names import CLASSES
from gender_classifier.metrics.histograms import PIXEL_STATISTICS, SIZE_STATISTICS, start_histogram, to_jsonable
from gender_classifier.preprocess.figures import split_balance


def describe_splits(
    splits: Mapping[str, Sequence[Record]], statistics: Mapping[str, Sequence[float]]
) -> Iterator[Artifact]:
    """Yield the metrics file, the figure, and the histograms of train for ``gender-classifier monitor``.

    Args:
        splits: records of each split.
        statistics: a value of each statistic for each training image.
    """
    reference = {name: start_histogram(name, "train") for name in (*SIZE_STATISTICS, *PIXEL_STATISTICS)}
    for name, histogram in reference.items():
        histogram.add(statistics[name])
    yield Artifact("data/processed/reference.json", to_jsonable(reference))
    yield Artifact("metrics/preprocess.json", {f"num_{name}": len(records) for name, records in splits.items()})
    counts = {name: Counter(record.label for record in records) for name, records in splits.items()}
    balance = {name: {label: found[label] for label in CLASSES} for name, found in counts.items()}
    yield Artifact("metrics/figures/preprocess/split_balance.png", split_balance(balance), "")

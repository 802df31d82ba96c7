"""Further labelled pictures: a folder, a zip or a CSV, with or without attributes, read a batch at a time."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.archive import MAX_MEMBER_BYTES, Archive
from gender_classifier.errors import ArchiveError, DataError, ImageError
from gender_classifier.evaluation import Report, evaluate, wilson_interval
from gender_classifier.images import to_array
from gender_classifier.layout import RAW_SPLITS
from gender_classifier.predictions import tabulate_confusion

MAX_UNREADABLE = 0.05
"""Share of a set's pictures; with more unreadable its figures would be of what happened to survive."""

MOST_VALUES = 50
"""Of an attribute; a column with more, such as a person's number, is no attribute to tabulate."""

_BATCH = 256  # pictures in memory at a time
_CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
_REQUIRED = ("path", "label")


@dataclass(frozen=True)
class LabelledImage:
    """One picture of a set, unread; ``attributes`` are in the order of the set's."""

    name: str
    label: int
    attributes: tuple[str, ...]
    read: Callable[[], bytes]


@dataclass
class LabelledSet:
    """A set opened for reading; ``left_out`` are columns with too many values to be attributes."""

    name: str
    images: Sequence[LabelledImage]
    attributes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> LabelledSet:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the zip, if it is one."""
        self._open.close()


@dataclass(frozen=True)
class Batch:
    """Pictures to score: ``rows`` int64 (N,) are their places in the set, ``pixels`` uint8 (N, S, S, 3)."""

    rows: NDArray[np.int64]
    pixels: NDArray[np.uint8]


@dataclass
class Reading:
    """What became of each picture of a set, filled as it is read.

    ``status`` has a word an image: ``ok``, ``seen in train``, ``seen in val``, or why it cannot be read. ``digest`` is
    SHA-256 over names, labels, attributes and contents, complete once all batches were read.
    """

    status: list[str] = field(default_factory=list)
    digest: str = ""

    def count(self) -> dict[str, int]:
        """Return how many images have which status, sorted by status."""
        return dict(sorted(Counter(self.status).items()))


def open_labelled_set(name: str, path: Path, classes: Sequence[str]) -> LabelledSet:
    """List the pictures of a set; none is read yet.

    A folder or zip holds a folder a class at its top, or in ``Training/`` and ``Validation/``, with pictures straight
    in it; one folder around all that may be there. A CSV has the columns ``path``, relative to the CSV, and ``label``;
    every further column is an attribute.

    Args:
        name: what ``evaluate.extra`` calls it.
        path: of the folder, .zip or .csv.
        classes: names in label order.

    Raises:
        DataError: there is no such set, or it is laid out otherwise.
        ArchiveError: it is a zip that must not be read.
    """
    where = f"evaluate.extra.{name}: {path}"
    if path.is_dir():
        contents = {one.relative_to(path).as_posix(): _reader(one) for one in sorted(path.rglob("*")) if one.is_file()}
        return LabelledSet(name, _place_all(where, contents, classes))
    if not path.exists():
        raise DataError(f"{where}: no such folder or file; mend the path in params.yaml, or take the set out")
    if path.suffix.lower() == ".csv":
        return _read_table(where, name, path, classes)
    if path.suffix.lower() != ".zip":
        raise DataError(f"{where}: is neither a folder nor a .zip nor a .csv; give one of them")
    with ExitStack() as stack:
        archive = stack.enter_context(Archive(path))
        contents = {member: _member_reader(archive, member) for member in archive.members}
        return LabelledSet(name, _place_all(where, contents, classes), _open=stack.pop_all())


def read_batches(
    labelled: LabelledSet, reading: Reading, *, size: int, max_pixels: int, seen: Mapping[str, str]
) -> Iterator[Batch]:
    """Decode a set, a batch in memory at a time; fill ``reading`` on the way.

    Args:
        labelled: the set.
        reading: empty.
        size: S, px.
        max_pixels: larger pictures are unreadable.
        seen: SHA-256 of a file to the split, train or val, that holds it: the model has learnt or was chosen by it.

    Yields:
        Pictures with the status ``ok``.
    """

    def prepare(image: LabelledImage) -> tuple[str, str, NDArray[np.uint8] | None]:
        try:
            data = image.read()
        except (OSError, ArchiveError):
            return "missing or damaged file", "", None
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 in seen:
            return f"seen in {seen[sha256]}", sha256, None
        try:
            return "ok", sha256, to_array(data, size, max_pixels=max_pixels)
        except ImageError as error:
            return error.reason, sha256, None

    digest = hashlib.sha256()
    waiting = iter(labelled.images)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(waiting, _BATCH)):
            first, pixels, rows = len(reading.status), [], []
            for place, (status, sha256, image) in enumerate(pool.map(prepare, chunk)):
                one = chunk[place]
                digest.update("\0".join([one.name, str(one.label), *one.attributes, sha256, "\n"]).encode())
                reading.status.append(status)
                if image is not None:
                    pixels.append(image)
                    rows.append(first + place)
            if pixels:
                yield Batch(np.array(rows, dtype=np.int64), np.stack(pixels))
    reading.digest = digest.hexdigest()


def check_reading(labelled: LabelledSet, reading: Reading) -> None:
    """Refuse a set of which too little could be read, or nothing is left to score.

    Raises:
        DataError: names the counts.
    """
    unreadable = count_unreadable(reading)
    total, counts = len(labelled.images), reading.count()
    listed = ", ".join(f"{count} {status}" for status, count in counts.items() if status != "ok")
    if unreadable > MAX_UNREADABLE * total:
        raise DataError(
            f"evaluate.extra.{labelled.name}: {unreadable} of {total} images cannot be read "
            f"({unreadable / total:.2%}), more than the tolerated {MAX_UNREADABLE:.0%}: {listed}; mend the set"
        )
    if not counts.get("ok"):
        raise DataError(
            f"evaluate.extra.{labelled.name}: none of its {total} images is left to score: {listed}; give pictures "
            "that the model was not trained on"
        )


def count_unreadable(reading: Reading) -> int:
    """Return how many images could not be read."""
    return sum(status != "ok" and not status.startswith("seen in ") for status in reading.status)


@dataclass(frozen=True)
class ScoredSet:
    """What a model makes of a set: ``report`` on the places ``rows`` int64 (N,), whose labels are int64 (N,)."""

    labelled: LabelledSet
    reading: Reading
    rows: NDArray[np.int64]
    labels: NDArray[np.int64]
    report: Report


def score_set(
    labelled: LabelledSet,
    predict: Callable[[NDArray[np.uint8]], NDArray[np.floating]],
    classes: Sequence[str],
    *,
    size: int,
    max_pixels: int,
    seen: Mapping[str, str],
    num_bins: int,
    on_images: Callable[[int], object] = lambda _: None,
) -> ScoredSet:
    """Read a set and measure a model on it.

    Args:
        labelled: the set, open.
        predict: uint8 (N, S, S, 3) to calibrated logits (N, C).
        classes: C names.
        size: S, px.
        max_pixels: larger pictures are unreadable.
        seen: as in :func:`read_batches`.
        num_bins: of the calibration error.
        on_images: told how many images were done, a batch at a time.

    Raises:
        DataError: too much is unreadable, or a class has nothing to score.
    """
    reading, done = Reading(), 0
    rows, logits = [], []
    for batch in read_batches(labelled, reading, size=size, max_pixels=max_pixels, seen=seen):
        rows.append(batch.rows)
        logits.append(predict(batch.pixels))
        on_images(len(reading.status) - done)
        done = len(reading.status)
    check_reading(labelled, reading)
    scored = np.concatenate(rows)
    labels = np.array([labelled.images[row].label for row in scored], dtype=np.int64)
    try:
        report = evaluate(np.concatenate(logits), labels, classes=classes, num_bins=num_bins)
    except DataError as error:
        raise DataError(f"evaluate.extra.{labelled.name}: {error}") from None
    return ScoredSet(labelled, reading, scored, labels, report)


def describe_set(scored: ScoredSet, path: str, classes: Sequence[str]) -> dict[str, Any]:
    """Return what the report keeps of a set: what was given, what became of it, every figure, the confusion."""
    statuses = scored.reading.count()
    return {
        "path": path,
        "digest": scored.reading.digest,
        "num_images": len(scored.labelled.images),
        "num_scored": statuses.get("ok", 0),
        "left_out": {status: count for status, count in statuses.items() if status != "ok"},
        "columns_left_out": list(scored.labelled.left_out),
        "metrics": scored.report.metrics,
        "confusion": tabulate_confusion(scored.report.confusion, classes),
    }


def prediction_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`list_predictions`."""
    return ["set", "path", "status", "actual", "predicted", "correct", *(f"prob_{name}" for name in classes)]


def list_predictions(scored: ScoredSet, classes: Sequence[str]) -> Iterator[list[object]]:
    """Yield a row an image, those left out without a prediction."""
    places = {int(row): place for place, row in enumerate(scored.rows)}
    for row, (image, status) in enumerate(zip(scored.labelled.images, scored.reading.status, strict=True)):
        start = [scored.labelled.name, image.name, status, classes[image.label]]
        if row in places:
            pred, probs = int(scored.report.preds[places[row]]), scored.report.probs[places[row]]
            yield [*start, classes[pred], int(pred == image.label), *(f"{prob:.6f}" for prob in probs)]
        else:
            yield [*start, *[""] * (2 + len(classes))]


@dataclass(frozen=True)
class AttributeRow:
    """The images with one value of one attribute; ``recalls`` has (n, recall, low, high) a class, None for n of 0."""

    attribute: str
    value: str
    n: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    recalls: tuple[tuple[int, float | None, float | None, float | None], ...]


def tabulate_attributes(scored: ScoredSet) -> list[AttributeRow]:
    """Measure all images together, then those with each value of each attribute, with 95 % intervals (Wilson)."""
    labelled, labels, report = scored.labelled, scored.labels, scored.report
    correct, num_classes = report.preds == labels, report.probs.shape[1]
    table = [_measure("all", "", labels, correct, num_classes)]
    for place, attribute in enumerate(labelled.attributes):
        values = np.array([labelled.images[row].attributes[place] for row in scored.rows])
        for value in sorted(set(values.tolist())):
            inside = values == value
            table.append(_measure(attribute, value, labels[inside], correct[inside], num_classes))
    return table


def attribute_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of :func:`flatten_row`."""
    per_class = [f"{key}_{name}{end}" for name in classes
                 for key, end in (("n", ""), ("recall", ""), ("recall", "_low"), ("recall", "_high"))]  # fmt: skip
    return ["attribute", "value", "n", "accuracy", "accuracy_low", "accuracy_high", *per_class]


def flatten_row(row: AttributeRow) -> list[object]:
    """Return a row as its cells; an empty one where a class has no image."""
    cells = [row.attribute, row.value, row.n, *map(_round, (row.accuracy, row.accuracy_low, row.accuracy_high))]
    for n, *figures in row.recalls:
        cells += [n, *map(_round, figures)]
    return cells


def _round(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _measure(
    attribute: str, value: str, labels: NDArray[np.int64], correct: NDArray[np.bool_], num_classes: int
) -> AttributeRow:
    recalls: list[tuple[int, float | None, float | None, float | None]] = []
    for label in range(num_classes):
        hits, total = int(correct[labels == label].sum()), int((labels == label).sum())
        recalls.append((total, hits / total, *wilson_interval(hits, total)) if total else (0, None, None, None))
    hits, total = int(correct.sum()), len(labels)
    return AttributeRow(attribute, value, total, hits / total, *wilson_interval(hits, total), tuple(recalls))


def _place_all(
    where: str, contents: Mapping[str, Callable[[], bytes]], classes: Sequence[str]
) -> Sequence[LabelledImage]:
    names = [name for name in sorted(contents) if not _is_clutter(name)]
    parts = {name: PurePosixPath(name).parts for name in names}
    tops = {one[0] for one in parts.values()}
    if len(tops) == 1 and not tops & {*classes, *RAW_SPLITS}:  # one folder around everything, as zips often have
        parts = {name: one[1:] for name, one in parts.items()}
    images = []
    for name, one in parts.items():
        inner = one[1:] if one and one[0] in RAW_SPLITS else one
        if len(inner) != 2 or inner[0] not in classes:
            raise DataError(
                f"{where}: {name} lies in no class folder; pictures must lie straight in {'/ or '.join(classes)}/, and "
                f"these at the top or in {'/ or '.join(RAW_SPLITS)}/"
            )
        images.append(LabelledImage(name, classes.index(inner[0]), (), contents[name]))
    if not images:
        raise DataError(f"{where}: holds no picture; it needs folders {' and '.join(classes)}")
    return images


def _read_table(where: str, name: str, path: Path, classes: Sequence[str]) -> LabelledSet:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = list(reader.fieldnames or ())
            missing = [column for column in _REQUIRED if column not in header]
            if missing or len(set(header)) < len(header) or "" in header:
                raise DataError(
                    f"{where}: line 1 names the columns {','.join(header)[:120]!r}; it needs path and label, each "
                    "column once and with a name"
                )
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{where}: not a readable CSV file in UTF-8 ({error}); save it anew") from None
    columns = [column for column in header if column not in _REQUIRED]
    left_out = tuple(one for one in columns if len({row[one] for _, row in rows}) > MOST_VALUES)
    attributes = tuple(one for one in columns if one not in left_out)
    images, lines = [], dict[str, int]()
    for line, row in rows:
        _check_row(where, line, row, classes, lines)
        values = tuple(row[one].strip() or "(empty)" for one in attributes)
        images.append(
            LabelledImage(row["path"], classes.index(row["label"]), values, _reader(path.parent / row["path"]))
        )
    if not images:
        raise DataError(f"{where}: holds no row below its header; list at least an image of each class")
    return LabelledSet(name, images, attributes, left_out)


def _check_row(
    where: str, line: int, row: Mapping[str | None, object], classes: Sequence[str], lines: dict[str, int]
) -> None:
    if None in row or None in row.values():
        raise DataError(f"{where}: line {line} has more or fewer cells than the header; mend that line")
    if row["label"] not in classes:
        raise DataError(f"{where}: line {line} has the label {row['label']!r}; the labels are {' and '.join(classes)}")
    path = str(row["path"])
    if not path or "\0" in path:
        raise DataError(f"{where}: line {line} has the path {path!r}; give that of a picture, relative to the CSV")
    if path in lines:
        raise DataError(f"{where}: line {line} lists {path}, as line {lines[path]} does; list each picture once")
    lines[path] = line


def _is_clutter(name: str) -> bool:
    return any(part.startswith(".") or part in _CLUTTER for part in PurePosixPath(name).parts)


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        if not path.is_file() or path.stat().st_size > MAX_MEMBER_BYTES:  # a pipe would be waited for
            raise OSError(f"no file, or more than {MAX_MEMBER_BYTES:,} bytes")
        return path.read_bytes()

    return read


def _member_reader(archive: Archive, name: str) -> Callable[[], bytes]:
    return lambda: archive.read(name)

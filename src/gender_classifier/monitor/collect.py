"""New images, or a log of predictions on them, counted into the bins of the training data's distributions."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.spreadsheet import restore_cell
from gender_classifier.data.images import check_side, decode, to_rgb, to_square
from gender_classifier.errors import DataError, GenderClassifierError
from gender_classifier.metrics.histograms import (
    SIZE_STATISTICS,
    Histogram,
    Reference,
    measure_pixels,
    measure_predictions,
)
from gender_classifier.predict.predictor import Predictor, Source, explain, map_in_order

LOG_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
"""Of a log of predictions, as ``gender-classifier predict --format csv`` or ``json`` writes it."""

_BATCH = 32  # images a thread holds, resized
_ROWS = 4096  # rows of a log in memory at a time

Unreadable = Callable[[str, str], object]
"""Told the name of what cannot be read, and why."""


@dataclass
class Tally:
    """What was counted: a histogram a statistic, with the reference's bins; images read, and images unreadable."""

    new: dict[str, Histogram]
    num_images: int = 0
    num_unreadable: int = 0


@dataclass
class _Batch:
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    count: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def tally_pictures(
    predictor: Predictor,
    sources: Iterable[Source],
    reference: Reference,
    *,
    on_unreadable: Unreadable,
    on_images: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Decode, measure and classify images on all cores; memory does not grow with their number.

    Args:
        predictor: built with ``threads=1``; its batches run beside one another.
        sources: the images.
        reference: whose statistics and bins.
        on_unreadable: told of each image that cannot be read; the rest goes on.
        on_images: told how many images were done, a batch at a time.
    """

    def measure(batch: Sequence[Source]) -> _Batch:
        return _measure(predictor, batch)

    return _collect(map_in_order(measure, _cut(sources, _BATCH)), reference, on_unreadable, on_images)


def tally_logs(
    paths: Iterable[Path],
    classes: Sequence[str],
    reference: Reference,
    *,
    on_unreadable: Unreadable,
    on_images: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Count the predictions in logs; of the images themselves they say nothing.

    Raises:
        DataError: a file is no such log, by name and line.
    """
    rows = (row for path in paths for row in _read_log(path, classes))
    return _collect((_gather(batch) for batch in _cut(rows, _ROWS)), reference, on_unreadable, on_images)


def _collect(
    batches: Iterable[_Batch], reference: Reference, on_unreadable: Unreadable, on_images: Callable[[int], object]
) -> Tally:
    tally = Tally({name: one.like() for name, one in reference.items()})
    for batch in batches:
        for name in batch.values.keys() & tally.new.keys():
            tally.new[name].add(batch.values[name])
        tally.num_images += batch.count
        tally.num_unreadable += len(batch.unreadable)
        for name, reason in batch.unreadable:
            on_unreadable(name, reason)
        on_images(batch.count + len(batch.unreadable))
    return tally


def _measure(predictor: Predictor, sources: Sequence[Source]) -> _Batch:
    batch, sizes, images = _Batch(), [], []
    for name, data in sources:
        try:
            picture = decode(data if isinstance(data, bytes) else data(), max_pixels=predictor.max_pixels)
            check_side(picture, predictor.min_side)
            images.append(to_square(to_rgb(picture), predictor.image_size))
            sizes.append(picture.size)
        except (GenderClassifierError, OSError) as error:
            batch.unreadable.append((name, explain(error)))
    if images:
        pixels = np.stack(images)
        batch.count = len(pixels)
        batch.values = {
            **dict(zip(SIZE_STATISTICS, np.array(sizes).T, strict=True)),
            **measure_pixels(pixels),
            **measure_predictions(predictor.compute_probs(pixels)),
        }
    return batch


def _gather(rows: Sequence[tuple[str, list[float], str]]) -> _Batch:
    probs = [probs for _, probs, error in rows if not error]
    batch = _Batch(count=len(probs), unreadable=[(name, error) for name, _, error in rows if error])
    if probs:
        batch.values = measure_predictions(np.array(probs))
    return batch


def _read_log(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, list[float], str]]:
    """Yield name, probability a class and error of each row."""
    read = _read_csv if path.suffix.lower() == ".csv" else _read_json
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line, row, probs in read(path, file, classes):
                name, error = str(row.get("name") or ""), str(row.get("error") or "")
                yield name, [] if error else _check_probs(path, line, probs), error
    except (OSError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a log of `gender-classifier predict`") from None


def _read_csv(
    path: Path, file: Iterable[str], classes: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any], list[Any]]]:
    reader = csv.DictReader(_quote_cut_names(file))
    wanted = [f"prob_{name}" for name in classes]
    if missing := [name for name in wanted if name not in (reader.fieldnames or ())]:
        raise DataError(
            f"{path}: line 1 lacks the column {', '.join(missing)}; give what `gender-classifier predict --format csv` "
            "writes"
        )
    for row in reader:
        for column in ("name", "error"):
            row[column] = restore_cell(row.get(column) or "")
        yield reader.line_num, row, [row[name] for name in wanted]


def _quote_cut_names(lines: Iterable[str]) -> Iterator[str]:
    """Quote names with a carriage return, which earlier versions wrote as they were: each cuts a row in two."""
    cut, is_quoted, is_header = "", False, True
    for line in lines:
        is_quoted ^= line.count('"') % 2 == 1
        if line.endswith("\r") and not is_quoted and not is_header:
            cut += line
            continue
        name, comma, rest = line.partition(",")
        yield f'"{cut}{name}"{comma}{rest}' if cut else line
        # Where the header itself ends with a carriage return, so does every row.
        cut, is_header = "", is_header and line.endswith("\r")
    if cut:
        yield cut


def _read_json(
    path: Path, file: Iterable[str], classes: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any], list[Any]]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            probs = [] if row.get("error") else [row["probs"][name] for name in classes]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(
                f"{path}: line {line} has no probabilities of {' and '.join(classes)} ({text.strip()[:60]!r}); give "
                "what `gender-classifier predict --format json` writes"
            ) from None
        yield line, row, probs


def _check_probs(path: Path, line: int, texts: Sequence[Any]) -> list[float]:
    try:
        probs = [float(text) for text in texts]
        if not (all(0 <= prob <= 1 for prob in probs) and abs(sum(probs) - 1) < 0.01):
            raise ValueError
    except (TypeError, ValueError):
        shown = ", ".join(map(str, texts))[:60]
        raise DataError(f"{path}: line {line} has the probabilities {shown}, not numbers that add up to 1") from None
    return probs


def _cut(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    remaining = iter(items)
    while batch := list(islice(remaining, size)):
        yield batch

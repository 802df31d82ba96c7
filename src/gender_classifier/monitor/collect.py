"""Histograms of new images, or of a log of predictions on them, with the bins of the training data."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.spreadsheet import restore_cell
from gender_classifier.common.threads import chunk
from gender_classifier.data.images import decode, to_rgb, to_square
from gender_classifier.errors import DataError
from gender_classifier.metrics.histograms import (
    SIZE_STATISTICS,
    Histogram,
    Reference,
    measure_pixels,
    measure_predictions,
)
from gender_classifier.predict.predictor import MAX_PIXELS, Predictor, Source, map_in_order, try_load

LOG_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
"""Suffixes of logs of predictions, as ``gender-classifier predict --format csv`` or ``json`` writes them."""

_BATCH = 32  # resized images that a thread holds
_ROWS = 4096  # rows of a log in memory

Unreadable = Callable[[str, str], object]
"""Called with the name of an unreadable image and the reason."""


@dataclass
class Tally:
    """A histogram per statistic, with the reference's bins, and the numbers of readable and unreadable images."""

    new: dict[str, Histogram]
    num_images: int = 0
    num_unreadable: int = 0


@dataclass
class _Batch:
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    count: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def tally_images(
    predictor: Predictor,
    sources: Iterable[Source],
    reference: Reference,
    *,
    on_unreadable: Unreadable,
    on_images: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Decode, measure and classify images on all cores; memory does not grow with their number.

    Args:
        predictor: loaded with ``threads=1``, since its batches run in parallel.
        sources: the images.
        reference: defines the statistics and their bins.
        on_unreadable: called for each unreadable image, which is then skipped.
        on_images: called with the number of images of each finished batch.
    """
    batches = map_in_order(partial(_measure, predictor), chunk(sources, _BATCH))
    return _collect(batches, reference, on_unreadable, on_images)


def tally_logs(
    paths: Iterable[Path],
    classes: Sequence[str],
    reference: Reference,
    *,
    on_unreadable: Unreadable,
    on_images: Callable[[int], object] = lambda _: None,
) -> Tally:
    """Count the predictions in logs, which hold no statistics of the images themselves.

    Raises:
        DataError: a file is not such a log; the error names file and line.
    """
    rows = (row for path in paths for row in _read_log(path, classes))
    return _collect(map(_gather, chunk(rows, _ROWS)), reference, on_unreadable, on_images)


def _collect(
    batches: Iterable[_Batch], reference: Reference, on_unreadable: Unreadable, on_images: Callable[[int], object]
) -> Tally:
    tally = Tally({name: histogram.like() for name, histogram in reference.items()})
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
    def load(data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        image = decode(data, max_pixels=MAX_PIXELS)
        return to_square(to_rgb(image), predictor.image_size), image.size

    outcomes = [(name, try_load(content, load)) for name, content in sources]
    unreadable = [(name, outcome) for name, outcome in outcomes if isinstance(outcome, str)]
    loaded = [outcome for _, outcome in outcomes if not isinstance(outcome, str)]
    if not loaded:
        return _Batch(unreadable=unreadable)
    pixels, sizes = (np.array(column) for column in zip(*loaded, strict=True))
    values = {
        **dict(zip(SIZE_STATISTICS, sizes.T, strict=True)),
        **measure_pixels(pixels),
        **measure_predictions(predictor.compute_probs(pixels)),
    }
    return _Batch(values, len(pixels), unreadable)


def _gather(rows: Sequence[tuple[str, list[float], str]]) -> _Batch:
    probs = [probs for _, probs, error in rows if not error]
    values = measure_predictions(np.array(probs)) if probs else {}
    return _Batch(values, len(probs), [(name, error) for name, _, error in rows if error])


def _read_log(path: Path, classes: Sequence[str]) -> Iterator[tuple[str, list[float], str]]:
    """Yield name, probability per class, and error of each row."""
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
    """Quote names with a carriage return, which earlier versions did not: unquoted, it splits the row."""
    cut, is_quoted, is_header = "", False, True
    for line in lines:
        is_quoted ^= line.count('"') % 2 == 1
        if line.endswith("\r") and not is_quoted and not is_header:
            cut += line
            continue
        name, comma, rest = line.partition(",")
        yield f'"{cut}{name}"{comma}{rest}' if cut else line
        # If the header ends with a carriage return, so does every row.
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

"""Histograms of new images, or of a log of predictions on them, with the bins of the training data."""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gender_classifier.common.spreadsheet import restore_cell
from gender_classifier.common.threads import chunk
from gender_classifier.data.images import check_side, crop_wide, decode, to_rgb, to_square
from gender_classifier.errors import DataError
from gender_classifier.metrics.histograms import SIZE_STATISTICS, Histogram, measure_pixels, measure_predictions
from gender_classifier.predict.predictor import Predictor, Source, map_in_order, try_load

LOG_SUFFIXES = (".csv", ".jsonl", ".ndjson", ".json")
"""Suffixes of logs of predictions, as ``gender-classifier predict --format csv`` or ``json`` writes them."""

_BATCH = 32  # resized images that a thread holds
_ROWS = 4096  # rows of a log in memory


@dataclass(frozen=True)
class Batch:
    """Values of each statistic for some images, and name and reason of each unreadable one."""

    values: dict[str, NDArray[Any]]
    num_images: int
    unreadable: list[tuple[str, str]]


class _Row(NamedTuple):
    """One row of a log: ``probs`` are empty if there is an ``error``."""

    name: str
    probs: list[float]
    unfamiliar: bool | None
    error: str


@dataclass
class Tally:
    """A histogram per statistic, with the reference's bins, and the numbers of readable and unreadable images."""

    new: dict[str, Histogram]
    num_images: int = 0
    num_unreadable: int = 0

    def add(self, batch: Batch) -> None:
        """Count a batch; statistics that the reference lacks are ignored."""
        for name in batch.values.keys() & self.new.keys():
            self.new[name].add(batch.values[name])
        self.num_images += batch.num_images
        self.num_unreadable += len(batch.unreadable)


def measure_images(predictor: Predictor, sources: Iterable[Source]) -> Iterator[Batch]:
    """Decode, measure and classify images on all cores; memory does not grow with their number.

    Args:
        predictor: loaded with ``threads=1``, since its batches run in parallel.
        sources: consumed as the batches are.
    """
    return map_in_order(partial(_measure, predictor), chunk(sources, _BATCH))


def read_logs(paths: Iterable[Path], classes: Sequence[str]) -> Iterator[Batch]:
    """Read the predictions in logs, which hold no statistics of the images themselves.

    In a log of ``predict --faces`` each face counts as an image, and images without a face do not count.

    Raises:
        DataError: a file is not such a log; the error names file and line.
    """
    rows = (row for path in paths for row in _read_log(path, classes))
    return map(_gather, chunk(rows, _ROWS))


def _measure(predictor: Predictor, sources: Sequence[Source]) -> Batch:
    def load(data: bytes) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        image = decode(data, max_pixels=predictor.max_pixels)
        check_side(image, predictor.min_side)
        size, image = image.size, crop_wide(image, predictor.crop)
        return to_square(to_rgb(image), predictor.image_size), size

    outcomes = [(name, try_load(content, load)) for name, content in sources]
    unreadable = [(name, outcome) for name, outcome in outcomes if isinstance(outcome, str)]
    loaded = [outcome for _, outcome in outcomes if not isinstance(outcome, str)]
    if not loaded:
        return Batch({}, 0, unreadable)
    pixels, sizes = (np.array(column) for column in zip(*loaded, strict=True))
    answers = predictor.compute(pixels)
    values = {
        **dict(zip(SIZE_STATISTICS, sizes.T, strict=True)),
        **measure_pixels(pixels),
        **_measure_answers([answer.probs for answer in answers], [answer.unfamiliar for answer in answers]),
    }
    return Batch(values, len(pixels), unreadable)


def _measure_answers(probs: Sequence[ArrayLike], flags: Sequence[bool | None]) -> dict[str, NDArray[Any]]:
    known = [flag for flag in flags if flag is not None]
    return measure_predictions(np.array(probs), np.array(known) if known else None)


def _gather(rows: Sequence[_Row]) -> Batch:
    read = [row for row in rows if not row.error]
    values = _measure_answers([row.probs for row in read], [row.unfamiliar for row in read]) if read else {}
    return Batch(values, len(read), [(row.name, row.error) for row in rows if row.error])


def _read_log(path: Path, classes: Sequence[str]) -> Iterator[_Row]:
    read = _read_csv if path.suffix.lower() == ".csv" else _read_json
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            for line, row, probs in read(path, file, classes):
                name, error = str(row.get("name") or ""), str(row.get("error") or "")
                flag = None if error else _check_flag(path, line, row.get("unfamiliar"))
                yield _Row(name, [] if error else _check_probs(path, line, probs), flag, error)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
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
        probs = [row[name] for name in wanted]
        if any(text != "" for text in (row.get("label"), row["error"], *probs)):  # else an image without a face
            yield reader.line_num, row, probs


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
            if row.get("label", "") is None:  # an image without a face
                continue
            probs = [] if row.get("error") else [row["probs"][name] for name in classes]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(
                f"{path}: line {line} has no probabilities of {' and '.join(classes)} ({text.strip()[:60]!r}); give "
                "what `gender-classifier predict --format json` writes"
            ) from None
        yield line, row, probs


def _check_flag(path: Path, line: int, value: object) -> bool | None:
    """Return ``true`` or ``false`` of a row; None if it is empty, or missing as in logs of older versions."""
    flags: dict[object, bool | None] = {"true": True, "false": False, "": None}
    text = "" if value is None else str(value).lower()
    if text not in flags:
        raise DataError(f"{path}: line {line} has {str(value)[:60]!r} as unfamiliar; it is true, false or empty")
    return flags[text]


def _check_probs(path: Path, line: int, texts: Sequence[Any]) -> list[float]:
    try:
        probs = [float(text) for text in texts]
        if not (all(0 <= prob <= 1 for prob in probs) and abs(sum(probs) - 1) < 0.01):
            raise ValueError
    except (TypeError, ValueError):
        shown = ", ".join(map(str, texts))[:60]
        raise DataError(f"{path}: line {line} has the probabilities {shown}, not numbers that add up to 1") from None
    return probs

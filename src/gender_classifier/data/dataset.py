"""Packed arrays of each split: images, labels, and an index that names each row's file."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.files import read_json, replacing, write_json
from gender_classifier.common.spreadsheet import read_table, write_table
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import DataError

INDEX_COLUMNS = ("row", "member", "label", "sha256")


@dataclass(frozen=True)
class PackedSplit:
    """One split, memory-mapped: ``images`` uint8 (N, S, S, 3) RGB, ``labels`` int64 (N,)."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class DatasetInfo:
    """Description of the data set, for training.

    Attributes:
        classes: names in label order.
        image_size: S, px.
        channel_mean: RGB mean over all pixels of ``train``, 0 to 1.
        channel_std: RGB standard deviation of the same, 0 to 1.
        manifest_sha256: of the manifest that the arrays were made from.
        split_sha256: of each split's index: which images, with which labels.
        corrections: number of images of each split that people relabelled or removed, without zeros; left out of the
            file if it is empty.
        widest: width over height that 1 % of the images of ``train`` exceed; 0 if it was not measured.
        aspect: median of width over height of the images of ``train``; 0 if it was not measured.
    """

    classes: tuple[str, ...]
    image_size: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    manifest_sha256: str
    split_sha256: Mapping[str, str]
    corrections: Mapping[str, int] = field(default_factory=dict)
    widest: float = 0.0
    aspect: float = 0.0


def sum_channels(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return int64 (3, 3) of uint8 (S, S, 3): number, sum and sum of squares of the values, a column per channel."""
    values = image.reshape(-1, 3).astype(np.float64)  # whole numbers, exact below 2**53
    ones = np.ones(len(values))
    return np.array([[len(values)] * 3, ones @ values, ones @ (values * values)], dtype=np.int64)


def measure_channels(sums: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of each channel, 0 to 1; the latter at least 1/255.

    The sums are exact, so the order of the images does not matter. A set of one flat colour has the deviation 1/255.

    Args:
        sums: of :func:`sum_channels`, added up over all images.
    """
    channels = sums.T.tolist()  # Python's integers: products exceed 64 bits
    variances = [(squares * pixels - total**2) / pixels**2 for pixels, total, squares in channels]
    means = tuple(total / pixels / 255 for pixels, total, _ in channels)
    return means, tuple(max(variance**0.5, 1.0) / 255 for variance in variances)


def measure_aspect(widths: Sequence[float], heights: Sequence[float]) -> tuple[float, float]:
    """Return ``widest``, rounded up, and ``aspect`` of :class:`DatasetInfo`, from the sizes of all images in px."""
    ratios = np.asarray(widths, dtype=np.float64) / np.asarray(heights, dtype=np.float64)
    # Order statistics: what a percentile interpolates may differ in its last digit by version of NumPy.
    widest, median = np.quantile(ratios, [0.99, 0.5], method="inverted_cdf").tolist()
    limit = round(widest, 4)
    return limit if limit >= widest else round(limit + 1e-4, 4), round(median, 4)


def write_images(path: Path, images: Iterable[NDArray[np.uint8]], count: int, size: int) -> None:
    """Write ``count`` images, uint8 (size, size, 3) each, into one .npy file as they come.

    Raises:
        DataError: there were fewer or more images than ``count``.
    """
    header = {"descr": "|u1", "fortran_order": False, "shape": (count, size, size, 3)}
    with replacing(path) as temporary, temporary.open("wb") as file:
        # Not through a memory map: on a full disk, writing to one kills the process.
        np.lib.format.write_array_header_1_0(file, header)
        written = 0
        for image in images:
            if written == count:
                raise DataError(f"{path}: more than the {count} images that the manifest lists; verify the data again")
            file.write(image.tobytes())
            written += 1
        if written != count:
            raise DataError(f"{path}: {written} images, the manifest lists {count}; verify the data again")


def write_integers(path: Path, values: Sequence[int]) -> None:
    """Write labels or groups as int64 (N,) into one .npy file."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, np.asarray(values, dtype=np.int64), allow_pickle=False)


def write_index(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write (member, label, sha256) of each row of the arrays, with row numbers from 0."""
    write_table(path, INDEX_COLUMNS, ([row, *columns] for row, columns in enumerate(rows)))


def read_index(path: Path) -> list[str]:
    """Return the member name of each row of the arrays.

    Raises:
        DataError: the file is missing or is not an index.
    """
    return _read_column(path, "member")


def read_digests(path: Path) -> list[str]:
    """Return the SHA-256 of each row's source file; see :func:`read_index`."""
    return _read_column(path, "sha256")


def _read_column(path: Path, column: str) -> list[str]:
    _, rows = read_table(path, [column], "run `dvc repro preprocess`")
    return [cells[0] for _, cells in rows]


def open_split(images_path: Path, labels_path: Path) -> PackedSplit:
    """Memory-map one split.

    Raises:
        DataError: a file is missing, incomplete or of the wrong kind, or the two do not match.
    """
    images, labels = _open_array(images_path), _open_array(labels_path)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise DataError(f"{images_path}: holds {images.dtype} {images.shape}, not uint8 (N, S, S, 3); preprocess again")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise DataError(
            f"{labels_path}: holds {labels.dtype} {labels.shape} for {len(images)} images; preprocess again"
        )
    if not len(images):
        raise DataError(f"{images_path}: holds no image; check metrics/verify.json for what was rejected")
    return PackedSplit(images, labels)


def open_groups(path: Path, count: int) -> NDArray[np.int64]:
    """Read the group of each of ``count`` training images, int64 (count,).

    Raises:
        DataError: the file is missing, incomplete or of the wrong kind.
    """
    groups = _open_array(path)
    if groups.dtype != np.int64 or groups.shape != (count,):
        raise DataError(f"{path}: holds {groups.dtype} {groups.shape} for {count} images; preprocess again")
    return groups


def write_info(path: Path, info: DatasetInfo) -> None:
    """Write ``info`` as JSON."""
    values = asdict(info)
    if not info.corrections:  # a data set without any has the bytes that it always had
        del values["corrections"]
    write_json(path, values)


def read_info(path: Path) -> DatasetInfo:
    """Read the file that :func:`write_info` writes.

    Raises:
        DataError: the file is missing or lacks a key.
    """
    raw = read_json(path)
    try:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        return DatasetInfo(**values)
    except TypeError as error:
        raise DataError(f"{path}: not a description of a data set ({error}); run `dvc repro -f preprocess`") from None


def tag_corrections(corrections: Mapping[str, int]) -> dict[str, int]:
    """Return the MLflow tags ``data.corrections.SPLIT`` for :attr:`DatasetInfo.corrections`, zeros included."""
    return {f"data.corrections.{split}": corrections.get(split, 0) for split in SPLITS}


def _open_array(path: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro preprocess`") from None
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy file ({error}); run `dvc repro -f preprocess`") from None
    return array

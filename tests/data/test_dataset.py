"""Packed arrays: whole or refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from gender_classifier.data.dataset import (
    DatasetInfo,
    measure_aspect,
    measure_channels,
    open_split,
    read_digests,
    read_index,
    read_info,
    sum_channels,
    tag_corrections,
    write_images,
    write_index,
    write_info,
    write_integers,
)
from gender_classifier.data.images import Crop, crop_wide
from gender_classifier.errors import DataError

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_images(tmp_path / "images.npy", iter(IMAGES), 5, 8)
    write_integers(tmp_path / "labels.npy", [0, 1, 0, 1, 1])
    return tmp_path


def test_a_split_comes_back_memory_mapped(folder: Path) -> None:
    split = open_split(folder / "images.npy", folder / "labels.npy")
    np.testing.assert_array_equal(split.images, IMAGES)
    assert split.labels.tolist() == [0, 1, 0, 1, 1]
    assert isinstance(split.images, np.memmap)


def test_the_shape_of_images_is_that_of_nearly_all() -> None:
    widths = [*range(701, 801), 3000, 3000]  # two panoramas among 102 images: one of them is within 99 %
    assert measure_aspect(widths, [1000] * 102) == (3.0, 0.751)
    assert measure_aspect(widths[:-1], [1000] * 101) == (0.8, 0.751)
    assert measure_aspect([2], [3]) == (0.6667, 0.6667)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (57, 100), (2, 3)])
def test_images_of_the_widest_common_shape_are_not_cropped(width: int, height: int) -> None:
    limit, aspect = measure_aspect([1] * 60 + [width] * 40, [height] * 100)
    image = Image.new("RGB", (width, height))
    assert crop_wide(image, Crop(limit, aspect)) is image


@pytest.mark.parametrize("count", [4, 6])
def test_a_wrong_number_of_images_leaves_no_file(tmp_path: Path, count: int) -> None:
    with pytest.raises(DataError, match="manifest lists"):
        write_images(tmp_path / "images.npy", iter(IMAGES), count, 8)
    assert not list(tmp_path.iterdir())


def test_torn_and_foreign_files_are_refused(folder: Path) -> None:
    images, labels = folder / "images.npy", folder / "labels.npy"
    whole = images.read_bytes()
    images.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="not a whole .npy file"):
        open_split(images, labels)
    images.write_bytes(b"")
    with pytest.raises(DataError, match="not a whole .npy file"):
        open_split(images, labels)
    np.save(images, np.array([{"pickled": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="not a whole .npy file"):
        open_split(images, labels)
    np.save(images, IMAGES.astype(np.float32))
    with pytest.raises(DataError, match="not uint8"):
        open_split(images, labels)
    images.write_bytes(whole)
    write_integers(labels, [0, 1])
    with pytest.raises(DataError, match=r"for 5 images"):
        open_split(images, labels)
    with pytest.raises(DataError, match="no such file"):
        open_split(folder / "none.npy", labels)


def test_an_empty_split_is_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "i.npy", iter(()), 0, 8)
    write_integers(tmp_path / "l.npy", [])
    with pytest.raises(DataError, match="holds no image"):
        open_split(tmp_path / "i.npy", tmp_path / "l.npy")


@given(arrays(np.uint8, st.tuples(st.integers(1, 6), st.just(4), st.just(4), st.just(3))))
def test_channel_statistics_are_numpys_whatever_the_order(images: np.ndarray) -> None:
    mean, std = measure_channels(sum(sum_channels(image) for image in images))
    assert (mean, std) == measure_channels(sum(sum_channels(image) for image in images[::-1]))
    unit = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean, unit.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(std, np.maximum(unit.std(axis=0), 1 / 255), atol=1e-9)


def test_index_and_info_come_back(tmp_path: Path) -> None:
    write_index(tmp_path / "i.csv", [("b, odd.jpg", "male", "1" * 64), ("a.jpg", "female", "2" * 64)])
    assert read_index(tmp_path / "i.csv") == ["b, odd.jpg", "a.jpg"]
    info = DatasetInfo(("female", "male"), 64, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), "0" * 64, {"train": "1" * 64})
    write_info(tmp_path / "d.json", info)
    assert read_info(tmp_path / "d.json") == info
    assert "corrections" not in (tmp_path / "d.json").read_text()  # the bytes of data without any do not change
    corrected = replace(info, corrections={"val": 2})
    write_info(tmp_path / "d.json", corrected)
    assert read_info(tmp_path / "d.json") == corrected
    assert tag_corrections(corrected.corrections) == {
        "data.corrections.train": 0, "data.corrections.val": 2, "data.corrections.test": 0}  # fmt: skip


def test_damaged_index_and_info_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_index(tmp_path / "i.csv")
    (tmp_path / "i.csv").write_text("x,y\n1,2\n")
    with pytest.raises(DataError, match="lacks the column member"):
        read_index(tmp_path / "i.csv")
    (tmp_path / "d.json").write_text('{"classes": []}')
    with pytest.raises(DataError, match="not a description"):
        read_info(tmp_path / "d.json")


def test_an_index_gives_back_any_name(tmp_path: Path) -> None:
    names = ["Training/male/Icon\r", "a\r\nb", "\n", ' "a", ', "na\u00efve.jpg"]
    write_index(tmp_path / "i.csv", [(name, "male", str(number) * 64) for number, name in enumerate(names)])
    assert read_index(tmp_path / "i.csv") == names
    assert read_digests(tmp_path / "i.csv") == [str(number) * 64 for number in range(len(names))]

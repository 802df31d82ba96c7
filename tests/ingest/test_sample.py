"""The drawn data set: the same everywhere, with its faults."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import inspect_labelled

from gender_classifier.data.images import decode
from gender_classifier.data.manifest import Record
from gender_classifier.errors import ParamsError
from gender_classifier.ingest.sample import MIN_TRAIN, MIN_VAL, draw_sample
from gender_classifier.pipeline.params import load_params
from gender_classifier.verify.policies import check_fitness, judge

POLICY = load_params(Path(__file__).parents[2] / "params.yaml").verify
SAMPLE = dict(draw_sample(0, num_train=60, num_val=20))
EVERY_FAULT = {
    "empty": 1,
    "not_an_image": 1,
    "truncated": 1,
    "exact_duplicate": 2,
    "conflicting_label": 2,
    "leakage": 1,
}


def test_names_and_counts_are_those_of_the_layout() -> None:
    assert list(SAMPLE) == sorted(SAMPLE)
    counts = Counter(name.rpartition("/")[0] for name in SAMPLE)
    assert counts == {
        "Training/female": 30, "Training/male": 30, "Validation/female": 10, "Validation/male": 10}  # fmt: skip
    assert all(re.fullmatch(r"\d{6}\.jpg\.jpg", name.rpartition("/")[2]) for name in SAMPLE)


def test_the_same_seed_draws_the_same_bytes_and_another_does_not() -> None:
    assert dict(draw_sample(0, num_train=60, num_val=20)) == SAMPLE
    other = dict(draw_sample(1, num_train=60, num_val=20))
    same = [name for name, data in SAMPLE.items() if other[name] == data]
    assert len(same) <= 2  # the empty file and the note


def test_an_image_does_not_depend_on_how_many_are_drawn() -> None:
    larger = dict(draw_sample(0, num_train=100, num_val=20))
    name = "Training/female/000010.jpg.jpg"
    assert larger[name] == SAMPLE[name]


def test_sizes_are_those_of_the_kaggle_set() -> None:
    images = [
        decode(data, max_pixels=10**6) for data in SAMPLE.values() if len(data) > 100 and data[-2:] == b"\xff\xd9"
    ]
    assert len(images) == 60 + 20
    widths, heights = zip(*(image.size for image in images), strict=True)
    assert min(widths) >= 52
    assert max(widths) <= 111
    assert min(heights) >= 58
    assert max(heights) <= 151
    assert len(set(widths)) > 20


def look(num_train: int, num_val: int, seed: int = 0) -> list[Record]:
    drawn = draw_sample(seed, num_train=num_train, num_val=num_val)
    return judge([inspect_labelled(name, data) for name, data in drawn], POLICY)


def count_rejects(records: list[Record]) -> Counter[str]:
    return Counter(record.reason for record in records if record.status == "rejected")


@pytest.mark.parametrize(("num_train", "num_val"), [(300, 100), (360, 40), (2000, 400)])
def test_from_400_images_on_every_fault_is_planted_found_and_tolerated(num_train: int, num_val: int) -> None:
    found = look(num_train, num_val)
    assert count_rejects(found) == EVERY_FAULT
    remarks = Counter(record.reason for record in found if record.status == "ok")
    assert remarks["wrong_mode"] == 1
    assert remarks["near_duplicate"] >= 4
    check_fitness(found, POLICY)


@pytest.mark.parametrize(
    ("num_train", "num_val", "rejected"), [(24, 8, 0), (60, 20, 1), (100, 40, 2), (160, 40, 4), (300, 80, 7)]
)
def test_a_smaller_sample_has_as_many_rejects_as_are_tolerated(num_train: int, num_val: int, rejected: int) -> None:
    found = look(num_train, num_val)
    assert count_rejects(found).total() == rejected
    assert count_rejects(found) <= Counter(EVERY_FAULT)
    assert {record.reason for record in found if record.status == "ok"} == {"", "wrong_mode", "near_duplicate"}
    check_fitness(found, POLICY)


def test_the_default_sample_is_the_same_to_the_byte() -> None:
    digest = hashlib.sha256()
    for name, data in draw_sample(0):
        digest.update(name.encode() + b"\0" + data)
    assert digest.hexdigest() == "9e285b0333e912cd8f5f33e5c745d7055385244dc1e3964a9a8840c3b7f40118"


def test_the_classes_differ_where_hair_falls() -> None:
    def around_neck(name: str) -> float:
        pixels = np.asarray(decode(SAMPLE[name], max_pixels=10**6).convert("L").resize((64, 64)), dtype=float)
        return float(np.abs(pixels[36:44, 8:20] - pixels[2:6, 2:6].mean()).mean())

    means = [np.mean([around_neck(f"Training/{label}/{first + n:06d}.jpg.jpg") for n in range(20)])
             for label, first in (("female", 1), ("male", 250_001))]  # fmt: skip
    assert means[0] > means[1]


@pytest.mark.parametrize(("num_train", "num_val"), [(MIN_TRAIN - 1, MIN_VAL), (MIN_TRAIN, MIN_VAL - 1)])
def test_too_few_images_for_the_faults_are_refused(num_train: int, num_val: int) -> None:
    with pytest.raises(ParamsError, match=f"at least {MIN_TRAIN} and ingest.sample_val to at least {MIN_VAL}"):
        next(draw_sample(0, num_train=num_train, num_val=num_val))


def test_the_smallest_sample_is_whole() -> None:
    records = judge([inspect_labelled(n, d) for n, d in draw_sample(3, num_train=MIN_TRAIN, num_val=MIN_VAL)], POLICY)
    usable = Counter((record.split, record.label) for record in records if record.status == "ok")
    assert len(usable) == 4
    assert min(usable.values()) >= 3

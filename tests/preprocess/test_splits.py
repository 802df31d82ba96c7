"""The one place that decides which images validate."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gender_classifier.data.corrections import Correction
from gender_classifier.data.manifest import RELABELLED, REMOVED, Record
from gender_classifier.errors import DataError
from gender_classifier.pipeline.params import load_params
from gender_classifier.preprocess.splits import choose, split_records
from gender_classifier.verify.policies import judge

ALL_PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")
PARAMS = ALL_PARAMS.preprocess
ROWS = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["female", "male"]), st.sampled_from(["", "", "", "1", "2", "3"])),
    min_size=1,
    unique_by=lambda row: row[0],
)


def split(rows: list[tuple[str, str, str]], fraction: float = 0.1, seed: int = 0) -> dict[str, bool]:
    members, labels, groups = zip(*rows, strict=True)
    chosen = choose(members, labels, groups, fraction=fraction, seed=str(seed), name="val")
    return dict(zip(members, chosen.tolist(), strict=True))


def plain(count: int) -> list[tuple[str, str, str]]:
    return [(f"Training/{label}/{n}.jpg", label, "") for label in ("female", "male") for n in range(count)]


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 0.5])
def test_each_class_gives_its_share(fraction: float) -> None:
    chosen = split(plain(400), fraction)
    counts = Counter(name.split("/")[1] for name, is_val in chosen.items() if is_val)
    assert counts == {"female": 400 * fraction, "male": 400 * fraction}


@given(rows=ROWS, seed=st.integers(0, 99), fraction=st.floats(0.01, 0.5), data=st.data())
def test_groups_stay_whole_and_order_does_not_matter(
    rows: list[tuple[int, str, str]], seed: int, fraction: float, data: st.DataObject
) -> None:
    named = [(str(number), label, group and f"{label}{group}") for number, label, group in rows]
    try:
        chosen = split(named, fraction, seed)
    except DataError:
        units = {(label, group or name) for name, label, group in named}
        assert min(Counter(label for label, _ in units).values()) == 1
        return
    assert split(data.draw(st.permutations(named)), fraction, seed) == chosen
    for group in {group for _, _, group in named if group}:
        assert len({chosen[name] for name, _, own in named if own == group}) == 1
    for label in {label for _, label, _ in named}:
        assert {chosen[name] for name, own, _ in named if own == label} == {True, False}


def test_another_seed_chooses_others_and_new_images_change_little() -> None:
    first, second = split(plain(400)), split(plain(400), seed=1)
    assert first != second
    grown = split(plain(404))
    moved = sum(grown[name] != is_val for name, is_val in first.items())
    assert moved <= 4


def test_too_few_images_are_refused_by_class() -> None:
    rows = [*plain(5), ("Training/other/1.jpg", "other", "")]
    with pytest.raises(DataError, match="train/other: 1 usable images in 1 groups are too few"):
        split(rows)


def test_a_group_under_two_labels_goes_one_way() -> None:
    rows = [*plain(20), ("a", "female", "7"), ("b", "male", "7")]
    for seed in range(20):
        chosen = split(rows, 0.3, seed)
        assert chosen["a"] == chosen["b"]
    assert isinstance(choose(["a", "b"], ["x", "x"], ["", ""], fraction=0.5, seed="0", name="val"), np.ndarray)


def records(**counts: int) -> list[Record]:
    return [
        Record(f"{split}/{label}/{n}.jpg", split, label, "")
        for split, count in counts.items()
        for label in ("a", "b", "c")
        for n in range(count)
    ]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"train": 100}, {"train": 72, "val": 8, "test": 20}),
        ({"train": 100, "test": 30}, {"train": 90, "val": 10, "test": 30}),
        ({"train": 100, "val": 7, "test": 30}, {"train": 100, "val": 7, "test": 30}),
    ],
)
def test_a_split_that_is_missing_is_made_of_the_training_images(
    counts: dict[str, int], expected: dict[str, int]
) -> None:
    given_records = records(**counts)
    found = split_records(given_records, PARAMS)[0]
    assert list(found) == ["train", "val", "test"]
    for name, chosen in found.items():
        assert Counter(record.label for record in chosen) == dict.fromkeys("abc", expected[name])
        if name in counts and name != "train":
            assert chosen == [record for record in given_records if record.split == name]
    assert sorted(record.member for chosen in found.values() for record in chosen) == sorted(
        record.member for record in given_records
    )


def test_the_same_images_validate_whatever_the_share_of_the_test_set() -> None:
    given_records = records(train=50, test=10)
    first, second = (split_records(given_records, replace(PARAMS, test_fraction=share))[0] for share in (0.1, 0.5))
    assert first == second


@given(
    drawn=st.lists(
        st.tuples(
            st.sampled_from("ab"), st.sampled_from(["", "", "p", "q", "r"]), st.sampled_from(["", "", "1", "2", "3"]),
            st.sampled_from(["train"] * 9 + ["test"]), st.sampled_from(["ok"] * 5 + ["rejected"]),
        ),
        min_size=4, max_size=40,
    ),
    seed=st.integers(0, 9),
    data=st.data(),
)  # fmt: skip
def test_no_group_of_people_and_copies_is_on_two_sides_of_a_split_that_is_made(
    drawn: list[tuple[str, str, str, str, str]], seed: int, data: st.DataObject
) -> None:
    rows = [
        Record(str(n), split, label, "", group=person, duplicate_group=copies, status=status)
        for n, (label, person, copies, split, status) in enumerate(drawn)
    ]
    params = replace(PARAMS, split_seed=seed)
    try:
        found = split_records(rows, params)[0]
    except DataError:
        return
    side = {record.member: name for name, records in found.items() for record in records}
    given_test = {record.member for record in rows if record.split == "test"}
    for name in ("group", "duplicate_group"):
        for value in {getattr(record, name) for record in rows} - {""}:
            members = [record.member for record in rows if getattr(record, name) == value and record.member in side]
            assert len({side[member] for member in members if member not in given_test}) <= 1
    assert set(side) == {record.member for record in rows if record.status == "ok"}
    again = split_records(data.draw(st.permutations(rows)), params)[0]
    assert {record.member: name for name, records in again.items() for record in records} == side


def test_a_large_group_does_not_fill_a_small_split() -> None:
    rows = [
        Record(f"{label}{n}", "train", label, "", group=f"{label}{max(n, 60)}") for label in "ab" for n in range(100)
    ]
    for seed in range(10):
        found = split_records(rows, replace(PARAMS, split_seed=seed))[0]
        assert len(found["test"]) == 40
        assert len(found["val"]) == 16


@pytest.mark.parametrize("counts", [{"train": 100}, {"train": 100, "test": 30}])
def test_corrected_images_stay_where_they_would_be_and_move_no_other(counts: dict[str, int]) -> None:
    """Otherwise one correction in train would change val, and no model could be compared with an earlier one."""
    given_records = records(**counts)
    plain, none = split_records(given_records, PARAMS)
    assert none == {}
    sides = {record.member: name for name, found in plain.items() for record in found}
    first = {name: [record.member for record in found] for name, found in plain.items()}
    changed, gone = first["train"][0::7] + first["val"][:2], first["train"][1::7] + first["test"][:3]
    corrected = [
        replace(record, label="c" if record.label != "c" else "a", reason=RELABELLED)
        if record.member in changed
        else replace(record, status="rejected", reason=REMOVED)
        if record.member in gone
        else record
        for record in given_records
    ]
    found, counted = split_records(corrected, PARAMS, {record.member: record.label for record in given_records})
    assert {record.member: name for name, kept in found.items() for record in kept} == {
        member: name for member, name in sides.items() if member not in gone
    }
    assert counted == {"train": len(first["train"][0::7] + first["train"][1::7]), "val": 2, "test": 3}


@settings(max_examples=50)
@given(
    drawn=st.lists(
        st.tuples(
            st.integers(0, 30), st.booleans(), st.sampled_from([False] * 9 + [True]),
            st.sampled_from(["train"] * 9 + ["test"]), st.sampled_from(["", "", "p", "q"]),
        ),
        min_size=15, max_size=40,
    ),
    decided=st.dictionaries(st.integers(0, 30), st.booleans(), max_size=5),
    near=st.sampled_from(["group", "drop", "keep"]),
)  # fmt: skip
def test_corrections_move_no_image_whatever_was_a_copy_of_what(
    drawn: list[tuple[int, bool, bool, str, str]], decided: dict[int, bool], near: Literal["group", "drop", "keep"]
) -> None:
    """Conflicts of labels that a person settles do add images, and are left out here."""
    policy = replace(ALL_PARAMS.verify, near_duplicates=near)
    given_records = []
    for number, (image, resaved, wrong, part, person) in enumerate(drawn):
        sha256 = hashlib.sha256(f"{image} {resaved}".encode()).hexdigest()
        phash = hashlib.sha256(f"{image}".encode()).hexdigest()[:-1] + "01"[resaved]
        label = "ab"[(image + wrong) % 2]
        given_records.append(Record(f"{number}", part, label, sha256, phash, 99, 99, "RGB", group=person))
    plain = judge(given_records, policy)
    conflicting = {record.sha256 for record in plain if record.reason == "conflicting_label"}
    corrections = {}
    for image, is_removal in decided.items():
        sha256, before = hashlib.sha256(f"{image} False".encode()).hexdigest(), "ab"[image % 2]
        if is_removal or sha256 not in conflicting:
            after = "" if is_removal else "ba"[image % 2]
            corrections[sha256] = Correction(sha256, "", before, after, "2026-01-31T09:30:00Z")
    corrected = judge(given_records, policy, corrections)
    try:
        expected = split_records(plain, PARAMS)[0]
    except DataError:
        return
    found, counts = split_records(corrected, PARAMS, {record.member: record.label for record in given_records})
    labels = {sha256: correction.label_after for sha256, correction in corrections.items()}
    for name, records in expected.items():
        members = [record.member for record in records if labels.get(record.sha256) != ""]
        assert [record.member for record in found[name]] == members
        assert counts.get(name, 0) == sum(labels.get(record.sha256, record.label) != record.label for record in records)

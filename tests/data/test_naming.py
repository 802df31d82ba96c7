"""What names of classes and splits mean."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gender_classifier.data.layouts.naming import USUAL_CLASSES, map_classes, map_splits
from gender_classifier.errors import SourceError

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=5)
USUAL = st.sampled_from([name for names in USUAL_CLASSES.values() for name in names])


@given(found=st.dictionaries(NAMES, st.integers(2, 9), min_size=2), data=st.data())
def test_the_order_of_the_names_does_not_matter(found: dict[str, int], data: st.DataObject) -> None:
    try:
        mapped = map_classes(found, None, "x")
    except SourceError:
        assert {name.casefold() for name in found} <= set(USUAL_CLASSES["female"]) or {
            name.casefold() for name in found
        } <= set(USUAL_CLASSES["male"])
        return
    shuffled = dict(data.draw(st.permutations(list(found.items()))))
    assert list(map_classes(shuffled, None, "x").items()) == list(mapped.items())
    assert set(mapped) == set(found)


@given(st.lists(USUAL, min_size=1), st.data())
def test_usual_names_in_any_case_are_two_classes_and_one_other_name_makes_all_classes(
    names: list[str], data: st.DataObject
) -> None:
    cased = [data.draw(st.sampled_from([name, name.upper(), name.title()])) for name in [*names, "f", "m"]]
    mapped = map_classes(dict.fromkeys(cased, 2), None, "x")
    assert all(name.casefold() in USUAL_CLASSES[label] for name, label in mapped.items())
    found = dict.fromkeys([*cased, "child"], 2)
    assert map_classes(found, None, "x") == {name: name for name in found}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([""], {"": "train"}),
        (["Training"], {"Training": "train"}),
        (["Training", "Validation"], {"Training": "train", "Validation": "test"}),
        (["train", "holdout 2"], {"train": "train", "holdout 2": "test"}),
        (["train", "val", "TEST"], {"train": "train", "val": "val", "TEST": "test"}),
        (["train", "training", "dev"], {"train": "train", "training": "train", "dev": "test"}),
    ],
)
def test_splits(found: list[str], expected: dict[str, str]) -> None:
    assert map_splits(found, "x") == map_splits(found[::-1], "x") == expected


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (["", "train"], "x: has the splits (none), train; give every image a split, or none"),
        (["a", "b"], "x: has the splits a, b, of which none is train"),
        (["train", "val", "other"], "x: has the splits other, train, val; three must be train, val and test"),
        (["train", "val", "test", "other"], "three must be train, val and test, and more are not used"),
    ],
)
def test_unclear_splits_are_refused(found: list[str], message: str) -> None:
    with pytest.raises(SourceError, match=re.escape(message)):
        map_splits(found, "x")

"""Assign images to train, val and test where the source does not; no other module does."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.groups import name_groups
from gender_classifier.data.manifest import Record
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import DataError
from gender_classifier.preprocess.params import PreprocessParams


def choose(
    members: Sequence[str], labels: Sequence[str], groups: Sequence[str], *, fraction: float, seed: str, name: str
) -> NDArray[np.bool_]:
    """Choose the images of a split, stratified by label, without splitting groups.

    The choice depends on the hash of each name or group, so neither the order of the images nor a few new ones
    reshuffle it.

    Args:
        members: unique names.
        labels: label of each member.
        groups: name of each member's group, ``""`` for none.
        fraction: share of each label's images, to within one group.
        seed: part of the hashes.
        name: of the split, for messages.

    Returns:
        bool (N,), True for the split.

    Raises:
        DataError: a label has too few images for both sides.
    """
    units: dict[str, list[int]] = defaultdict(list)
    for row, (member, group) in enumerate(zip(members, groups, strict=True)):
        units[group or f"member {member}"].append(row)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for _, rows in sorted(units.items(), key=lambda unit: hashlib.sha256(f"{seed} {unit[0]}".encode()).digest()):
        # A group with two labels counts for the label of its first name.
        by_label[labels[min(rows, key=lambda row: members[row])]].append(rows)
    chosen = np.zeros(len(members), dtype=np.bool_)
    for label, ranked in sorted(by_label.items()):
        chosen[_take(label, ranked, fraction, name)] = True
    return chosen


def _take(label: str, ranked: Sequence[list[int]], fraction: float, name: str) -> list[int]:
    total = sum(len(rows) for rows in ranked)
    wanted = max(1, round(total * fraction))
    taken: list[int] = []
    for rows in ranked[:-1]:  # one unit stays on the other side
        if len(taken) >= wanted:
            break
        if len(taken) + len(rows) <= 2 * wanted:  # a person with a thousand images would fill the split
            taken += rows
    if not taken and len(ranked) > 1:
        taken = min(ranked, key=len)
    if not taken:
        raise DataError(
            f"train/{label}: {total} usable images in {len(ranked)} groups are too few to split off {name}; add "
            "images, or set verify.near_duplicates to keep"
        )
    return taken


def split_records(records: Sequence[Record], params: PreprocessParams) -> dict[str, list[Record]]:
    """Return the records that are fit to use by split.

    A split that the source has stays as it is. Otherwise ``test``, then ``val``, is chosen among the training images;
    then no group (:func:`~gender_classifier.data.groups.name_groups`) is on two sides.
    """
    groups = {record.member: name for record, name in zip(records, name_groups(records), strict=True)}
    splits = {"train": [record for record in records if record.status == "ok" and record.split == "train"]}
    # The seed of val is a plain number, as it was when val alone was chosen: the same images stay in it.
    chosen = {
        "test": (params.test_fraction, f"test {params.split_seed}"),
        "val": (params.val_fraction, f"{params.split_seed}"),
    }
    for name, (fraction, seed) in chosen.items():
        splits[name] = [record for record in records if record.status == "ok" and record.split == name]
        if any(record.split == name for record in records):
            continue
        pool = splits["train"]
        is_chosen = choose(
            [record.member for record in pool],
            [record.label for record in pool],
            [groups[record.member] for record in pool],
            fraction=fraction,
            seed=seed,
            name=name,
        )
        splits["train"], splits[name] = list(compress(pool, ~is_chosen)), list(compress(pool, is_chosen))
    return {name: splits[name] for name in SPLITS}

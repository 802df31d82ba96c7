"""Assign the training images of the source to train and val; no other module does."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import compress

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.manifest import Record
from gender_classifier.errors import DataError
from gender_classifier.preprocess.params import PreprocessParams


def assign_val(
    members: Sequence[str], labels: Sequence[str], groups: Sequence[str], *, val_fraction: float, seed: int
) -> NDArray[np.bool_]:
    """Choose the validation images, stratified by label, without splitting duplicate groups.

    The choice depends on the hash of each name or group, so neither the order of the images nor a few new ones
    reshuffle it.

    Args:
        members: unique names.
        labels: label of each member.
        groups: duplicate group of each member, ``""`` for none.
        val_fraction: share of each label's images, to within one group.
        seed: part of the hashes.

    Returns:
        bool (N,), True for validation.

    Raises:
        DataError: a label has too few images for both splits.
    """
    units: dict[str, list[int]] = defaultdict(list)
    for row, (member, group) in enumerate(zip(members, groups, strict=True)):
        units[f"group {group}" if group else f"member {member}"].append(row)
    by_label: dict[str, list[list[int]]] = defaultdict(list)
    for _, rows in sorted(units.items(), key=lambda unit: hashlib.sha256(f"{seed} {unit[0]}".encode()).digest()):
        # A group with two labels counts for the label of its first name.
        by_label[labels[min(rows, key=lambda row: members[row])]].append(rows)
    chosen = np.zeros(len(members), dtype=np.bool_)
    for label, ranked in sorted(by_label.items()):
        chosen[_take(label, ranked, val_fraction)] = True
    return chosen


def _take(label: str, ranked: Sequence[list[int]], val_fraction: float) -> list[int]:
    total = sum(len(rows) for rows in ranked)
    wanted = max(1, round(total * val_fraction))
    taken: list[int] = []
    for rows in ranked[:-1]:  # one unit stays in train
        if len(taken) >= wanted:
            break
        taken += rows
    if not taken:
        raise DataError(
            f"train/{label}: {total} usable images in {len(ranked)} groups are too few to split into train and val; "
            "add images, or set verify.near_duplicates to keep"
        )
    return taken


def split_records(records: Sequence[Record], params: PreprocessParams) -> dict[str, list[Record]]:
    """Return the records that are fit to use by split: train and val from the source's ``train``, and its ``test``."""
    fit = [record for record in records if record.status == "ok"]
    training = [record for record in fit if record.split == "train"]
    is_val = assign_val(
        [record.member for record in training],
        [record.label for record in training],
        [record.duplicate_group for record in training],
        val_fraction=params.val_fraction,
        seed=params.split_seed,
    )
    return {
        "train": list(compress(training, ~is_val)),
        "val": list(compress(training, is_val)),
        "test": [record for record in fit if record.split == "test"],
    }

"""Assign images to train, val and test where the source does not; no other module does."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gender_classifier.data.groups import name_groups
from gender_classifier.data.manifest import RELABELLED, REMOVED, Record
from gender_classifier.data.names import SPLITS
from gender_classifier.data.raw_table import read_raw_table
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


def read_source_labels(records: Iterable[Record], table_path: Path) -> dict[str, str]:
    """Return the source's label of each image that a person relabelled, by member, from the raw table."""
    relabelled = {record.member for record in records if record.reason == RELABELLED}
    if not relabelled:
        return {}
    table = read_raw_table(table_path)
    return {row.member: row.label for row in table.rows if row.member in relabelled}


def split_records(
    records: Sequence[Record], params: PreprocessParams, source_labels: Mapping[str, str] | None = None
) -> tuple[dict[str, list[Record]], dict[str, int]]:
    """Return the records that are fit to use by split, and the number of corrected images by split, without zeros.

    A split that the source has stays as it is. Otherwise ``test``, then ``val``, is chosen among the training images;
    then no group (:func:`~gender_classifier.data.groups.name_groups`) is on two sides. Images are chosen as if nobody
    had corrected them, so a correction in ``train`` leaves ``val`` and ``test`` as they are, and models comparable.
    Only a label that settles a conflict adds an image to choose from.

    Args:
        records: the manifest.
        params: fractions and seed.
        source_labels: of the relabelled images, by member.
    """
    source_labels = source_labels or {}
    groups = {record.member: name for record, name in zip(records, name_groups(records), strict=True)}
    # ``verify`` removes images last: without a person's decision, these would be fit.
    usable = [record for record in records if record.status == "ok" or record.reason == REMOVED]
    splits = {"train": [record for record in usable if record.split == "train"]}
    # The seed of val is a plain number, as it was when val alone was chosen: the same images stay in it.
    chosen = {
        "test": (params.test_fraction, f"test {params.split_seed}"),
        "val": (params.val_fraction, f"{params.split_seed}"),
    }
    for name, (fraction, seed) in chosen.items():
        splits[name] = [record for record in usable if record.split == name]
        if any(record.split == name for record in records):
            continue
        pool = splits["train"]
        is_chosen = choose(
            [record.member for record in pool],
            [source_labels.get(record.member, record.label) for record in pool],
            [groups[record.member] for record in pool],
            fraction=fraction,
            seed=seed,
            name=name,
        )
        splits["train"], splits[name] = list(compress(pool, ~is_chosen)), list(compress(pool, is_chosen))
    corrected = Counter(
        name for name, found in splits.items() for record in found if record.reason in (RELABELLED, REMOVED)
    )
    kept = {name: [record for record in splits[name] if record.status == "ok"] for name in SPLITS}
    return kept, {name: corrected[name] for name in SPLITS if corrected[name]}

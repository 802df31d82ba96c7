"""Which images are fit to use: facts of each image, then a verdict over all of them."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from gender_classifier.common.file_names import find_other_format
from gender_classifier.common.files import write_csv
from gender_classifier.data.images import decode, perceptual_hash
from gender_classifier.data.names import CLASSES, RAW_SPLITS
from gender_classifier.errors import DataError, ImageError
from gender_classifier.verify.params import VerifyParams

HASH_BITS = 256


@dataclass(frozen=True)
class Record:
    """One row of the manifest.

    ``split`` is the raw folder, ``Training`` or ``Validation``. ``status`` is ``ok`` or ``rejected``; ``reason``
    says why, or what was noticed about an image that stays. ``duplicate_group`` is a number shared by images that
    are the same picture or nearly so, empty for the others. ``phash``, ``mode`` and sizes (px) are empty and 0
    where nothing could be decoded.
    """

    member: str
    split: str
    label: str
    sha256: str
    phash: str = ""
    width: int = 0
    height: int = 0
    mode: str = ""
    status: str = "ok"
    reason: str = ""
    duplicate_group: str = ""


def inspect(member: str, data: bytes, *, max_pixels: int) -> Record:
    """Decode one image completely and note what it shows by itself; ``reason`` says why it cannot be decoded."""
    split, label = member.split("/")[:2]
    record = Record(member, split, label, hashlib.sha256(data).hexdigest())
    if find_other_format(member, data):
        return replace(record, status="rejected", reason="not_an_image")
    try:
        image = decode(data, max_pixels=max_pixels)
    except ImageError as error:
        return replace(record, status="rejected", reason=error.reason)
    return replace(record, phash=perceptual_hash(image), width=image.width, height=image.height, mode=image.mode)


def judge(records: Sequence[Record], policy: VerifyParams) -> list[Record]:
    """Apply the policies to what :func:`inspect` found.

    In this order, the first that rejects an image gives the reason: what cannot be decoded; too small; wrong mode;
    one picture under two labels; one picture in both splits; exact duplicates; near duplicates. An image rejected
    by one step is not compared in the later ones.

    Returns:
        The records in order of member names, with ``status``, ``reason`` and ``duplicate_group``.
    """
    judged = {record.member: record for record in sorted(records, key=lambda record: record.member)}
    _judge_alone(judged, policy)
    exact = _group_exact(judged)
    near = _merge_near(exact, judged, policy)
    _number_groups(judged, near)
    _apply(judged, exact, "conflicting_label", _find_conflicts if policy.conflicting_labels == "drop" else None)
    _apply(judged, near, "leakage", _find_leaks(policy.leakage))
    _apply(judged, exact, "exact_duplicate", _find_copies if policy.exact_duplicates == "drop" else None)
    _apply(judged, near, "near_duplicate", _find_copies if policy.near_duplicates == "drop" else None)
    if policy.near_duplicates == "keep":
        # Groups then hold exact copies alone; near ones may fall on both sides of the train/val split.
        _number_groups(judged, exact)
    else:
        _remark_near(judged, near)
    return list(judged.values())


def check_fitness(records: Sequence[Record], policy: VerifyParams) -> None:
    """Refuse a data set that lacks a class in a split, or lost too many images.

    Raises:
        DataError: names what is missing, or what was rejected and how many.
    """
    usable = Counter((record.split, record.label) for record in records if record.status == "ok")
    present = Counter((record.split, record.label) for record in records)
    for split in RAW_SPLITS:
        for label in CLASSES:
            if not usable[split, label]:
                held = present[split, label]
                what = f"none of its {held} images is usable" if held else "is missing or empty"
                raise DataError(
                    f"{split}/{label}: {what}; the data set needs images in {' and '.join(RAW_SPLITS)}, each with "
                    f"{' and '.join(CLASSES)}"
                )
    reasons = Counter(record.reason for record in records if record.status == "rejected")
    rejected = sum(reasons.values())
    if rejected > policy.max_rejected * len(records):
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        raise DataError(
            f"{rejected} of {len(records)} images rejected ({rejected / len(records):.2%}), more than the tolerated "
            f"{policy.max_rejected:.2%}: {listed}; mend the data, or raise verify.max_rejected"
        )


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the report: counts a split, label and verdict; what was noticed and what became of it; sizes, modes."""
    counts: dict[str, dict[str, dict[str, int]]] = {
        split: {label: {"ok": 0, "rejected": 0} for label in CLASSES} for split in RAW_SPLITS
    }
    findings: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record.split][record.label][record.status] += 1
        if record.reason:
            findings[record.reason]["rejected" if record.status == "rejected" else _KEPT_AS[record.reason]] += 1
    decoded = [record for record in records if record.width]
    return {
        "num_images": len(records),
        "num_ok": sum(record.status == "ok" for record in records),
        "num_rejected": sum(record.status == "rejected" for record in records),
        "counts": counts,
        "findings": {reason: dict(sorted(found.items())) for reason, found in sorted(findings.items())},
        "duplicate_groups": len({record.duplicate_group for record in records if record.duplicate_group}),
        "width_px": _quantiles([record.width for record in decoded]),
        "height_px": _quantiles([record.height for record in decoded]),
        "modes": dict(sorted(Counter(record.mode for record in decoded).items())),
    }


def write_manifest(path: Path, records: Iterable[Record]) -> None:
    """Write a row an image, the fields of :class:`Record` as columns."""
    write_csv(path, MANIFEST_COLUMNS, map(attrgetter(*MANIFEST_COLUMNS), records))


def read_manifest(path: Path) -> list[Record]:
    """Read what :func:`write_manifest` wrote.

    Raises:
        DataError: the file is missing, or a line is not a record.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != MANIFEST_COLUMNS:
                raise DataError(f"{path}: line 1 does not name the columns of a manifest; run `dvc repro -f verify`")
            return [_parse_row(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run `dvc repro verify`") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a readable manifest ({error}); run `dvc repro -f verify`") from None


MANIFEST_COLUMNS = tuple(field.name for field in fields(Record))

_KEPT_AS = {
    "wrong_mode": "converted to RGB",
    "conflicting_label": "kept",
    "leakage": "kept",
    "exact_duplicate": "kept",
    "near_duplicate": "kept, grouped",
}

Groups = list[list[str]]
"""Members that belong together, two or more each, sorted; the groups sorted by their first member."""


def _parse_row(path: Path, line: int, row: list[str]) -> Record:
    values: dict[str, Any] = dict(zip(MANIFEST_COLUMNS, row, strict=False))
    try:
        if len(row) != len(MANIFEST_COLUMNS) or values["status"] not in ("ok", "rejected"):
            raise ValueError
        return Record(**{**values, "width": int(values["width"]), "height": int(values["height"])})
    except ValueError:
        shown = ",".join(row)[:80]
        raise DataError(f"{path}: line {line} is no record ({shown!r}); run `dvc repro -f verify`") from None


def _judge_alone(judged: dict[str, Record], policy: VerifyParams) -> None:
    for member, record in judged.items():
        if record.status == "rejected":
            continue
        if min(record.width, record.height) < policy.min_side:
            judged[member] = replace(record, status="rejected", reason="too_small")
        elif record.mode != "RGB":
            status = "rejected" if policy.wrong_mode == "reject" else "ok"
            judged[member] = replace(record, status=status, reason="wrong_mode")


def _group_exact(judged: dict[str, Record]) -> Groups:
    by_content: dict[str, list[str]] = defaultdict(list)
    for member, record in judged.items():
        if record.status == "ok":
            by_content[record.sha256].append(member)
    return sorted(group for group in by_content.values() if len(group) > 1)


def _merge_near(exact: Groups, judged: dict[str, Record], policy: VerifyParams) -> Groups:
    """Join exact copies and pictures whose hashes differ by no more than the tolerated bits."""
    members = [member for member, record in judged.items() if record.status == "ok"]
    row = {member: number for number, member in enumerate(members)}
    parent = list(range(len(members)))

    def find(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    pairs = [(row[group[0]], row[other]) for group in exact for other in group[1:]]
    pairs += find_near_pairs([judged[member].phash for member in members], policy.near_duplicate_distance)
    for first, second in pairs:
        low, high = sorted((find(first), find(second)))
        parent[high] = low
    groups: dict[int, list[str]] = defaultdict(list)
    for member in members:
        groups[find(row[member])].append(member)
    return sorted(group for group in groups.values() if len(group) > 1)


def find_near_pairs(hashes: Sequence[str], distance: int, *, block: int = 512) -> Iterator[tuple[int, int]]:
    """Yield the pairs (i, j), i < j, whose hashes differ in at most ``distance`` bits.

    All pairs: with bits as +-1, a scalar product is 256 minus twice the distance. Hashes with under a quarter of
    their bits set come from flat pictures, resemble one another by chance, and are left out.

    Args:
        hashes: 64 hex digits each.
        distance: bits of 256.
        block: rows at a time; small enough for a block of products to stay in the processor's cache.
    """
    packed = np.frombuffer(bytes.fromhex("".join(hashes)), dtype=np.uint8)
    bits = np.unpackbits(packed.reshape(len(hashes), HASH_BITS // 8), axis=1)
    telling = np.flatnonzero(bits.sum(axis=1) >= HASH_BITS // 4)
    signs = bits[telling].astype(np.float32) * 2 - 1
    least = HASH_BITS - 2 * distance
    for start in range(0, len(signs), block):
        for other in range(start, len(signs), 4 * block):
            products = signs[start : start + block] @ signs[other : other + 4 * block].T
            if products.max() < least:
                continue
            rows, columns = np.nonzero(products >= least)
            pairs = zip(telling[start + rows].tolist(), telling[other + columns].tolist(), strict=True)
            yield from ((first, second) for first, second in pairs if first < second)


def _number_groups(judged: dict[str, Record], groups: Groups) -> None:
    numbers = {member: str(number) for number, group in enumerate(groups, start=1) for member in group}
    for member, record in judged.items():
        judged[member] = replace(record, duplicate_group=numbers.get(member, ""))


def _apply(
    judged: dict[str, Record], groups: Groups, reason: str, find: Callable[[list[Record]], list[Record]] | None
) -> None:
    """Reject, for ``reason``, what ``find`` points out in each group of images still in use."""
    if find is None:
        return
    for group in groups:
        alive = [judged[member] for member in group if judged[member].status == "ok"]
        for record in find(alive):
            judged[record.member] = replace(record, status="rejected", reason=reason)


def _find_conflicts(group: list[Record]) -> list[Record]:
    return group if len({record.label for record in group}) > 1 else []


def _find_leaks(policy: str) -> Callable[[list[Record]], list[Record]] | None:
    loser = {"drop_train": RAW_SPLITS[0], "drop_test": RAW_SPLITS[1]}.get(policy)
    if loser is None:
        return None

    def find(group: list[Record]) -> list[Record]:
        leaks = len({record.split for record in group}) > 1
        return [record for record in group if leaks and record.split == loser]

    return find


def _find_copies(group: list[Record]) -> list[Record]:
    """Keep the first image a split: copies across splits are the leakage policy's to judge."""
    firsts = {record.split: record for record in reversed(group)}
    return [record for record in group if firsts[record.split] is not record]


def _remark_near(judged: dict[str, Record], near: Groups) -> None:
    for group in near:
        alive = [judged[member] for member in group if judged[member].status == "ok"]
        if len(alive) > 1:
            for record in alive:
                judged[record.member] = replace(record, reason=record.reason or "near_duplicate")


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    if not values:
        return {}
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}

"""Apply the policies to all images together: which are fit to use, and why the others are not."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import product

from gender_classifier.data.corrections import Corrections
from gender_classifier.data.manifest import RELABELLED, Record
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import DataError
from gender_classifier.verify.corrections import relabel, remove
from gender_classifier.verify.duplicates import Groups, group_exact, group_people, merge_near
from gender_classifier.verify.params import VerifyParams


def judge(records: Sequence[Record], policy: VerifyParams, corrections: Corrections | None = None) -> list[Record]:
    """Apply the policies to the results of :func:`~gender_classifier.verify.quality.assess`.

    The first step that rejects an image gives the reason: not decodable; image quality; too small; wrong mode; same
    image with two labels; same image in two splits; same person in two splits; exact duplicates; near duplicates;
    removed by a person. A rejected image is not compared in later steps. All steps but the first four see corrected
    labels. Removals come last, so they change nothing about other images, and a removed image is one that would be fit.

    Returns:
        Records sorted by member, with ``status``, ``reason`` and ``duplicate_group``.
    """
    judged = {record.member: record for record in sorted(records, key=lambda record: record.member)}
    _judge_alone(judged, policy)
    exact = group_exact(judged)
    near = merge_near(exact, judged, policy)
    _number_groups(judged, near)
    # Groups come first: their numbers, by which preprocess splits them, do not depend on corrections.
    corrections = corrections or {}
    relabel(judged, corrections)
    if policy.conflicting_labels == "drop":
        _apply(judged, exact, "conflicting_label", _find_conflicts)
    if kept := _KEPT_FIRST.get(policy.leakage):
        _apply(judged, near, "leakage", partial(_find_leaks, kept=kept))
        _apply(judged, group_people(judged), "person_leakage", partial(_find_leaks, kept=kept))
    if policy.exact_duplicates == "drop":
        _apply(judged, exact, "exact_duplicate", _find_copies)
    if policy.near_duplicates == "drop":
        _apply(judged, near, "near_duplicate", _find_copies)
    remove(judged, corrections)
    if policy.near_duplicates == "keep":
        # Groups are then of exact copies only: near ones may be split between train and val.
        _number_groups(judged, exact)
    else:
        _remark_near(judged, near)
    return list(judged.values())


def check_fitness(records: Sequence[Record], policy: VerifyParams, corrections: Corrections | None = None) -> None:
    """Refuse a data set that lacks a class in a split, or in which too many images were rejected.

    Raises:
        DataError: names the missing class, or the number of images rejected for each reason. Those that a person
            removed do not count, whatever else is wrong with them.
    """
    usable = Counter((record.split, record.label) for record in records if record.status == "ok")
    present = Counter((record.split, record.label) for record in records)
    splits, labels = ({key[place] for key in present} for place in (0, 1))
    for split, label in product(sorted(splits, key=SPLITS.index), sorted(labels)):
        if not usable[split, label]:
            held = present[split, label]
            what = f"none of its {held} images is usable" if held else "is missing or empty"
            raise DataError(f"{split}/{label}: {what}; each split needs images of {' and '.join(sorted(labels))}")
    removed = {sha256 for sha256, correction in (corrections or {}).items() if correction.is_removal}
    rejected = [record for record in records if record.status == "rejected" and record.sha256 not in removed]
    if len(rejected) > policy.max_rejected * len(records):
        reasons = Counter(record.reason for record in rejected)
        listed = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        names = ", ".join([record.member for record in rejected[:3]] + ["..."] * (len(rejected) > 3))
        raise DataError(
            f"{len(rejected)} of {len(records)} images rejected ({len(rejected) / len(records):.2%}), more than the "
            f"tolerated {policy.max_rejected:.2%}: {listed} ({names}); correct the data and read it again (`dvc repro "
            "--force --single-item ingest`), or raise verify.max_rejected"
        )


_KEPT_FIRST = {"drop_train": ("test", "val", "train"), "drop_test": ("train", "val", "test")}

KEPT_AS = {
    RELABELLED: "kept",
    "wrong_mode": "converted to RGB",
    "conflicting_label": "kept",
    "leakage": "kept",
    "person_leakage": "kept",
    "exact_duplicate": "kept",
    "near_duplicate": "kept, grouped",
}
"""Reason to the word for images that are kept in spite of it."""


def _judge_alone(judged: dict[str, Record], policy: VerifyParams) -> None:
    for member, record in judged.items():
        if record.status == "rejected":
            continue
        if min(record.width, record.height) < policy.min_side:
            judged[member] = replace(record, status="rejected", reason="too_small")
        elif record.mode != "RGB":
            status = "rejected" if policy.wrong_mode == "reject" else "ok"
            judged[member] = replace(record, status=status, reason="wrong_mode")


def _number_groups(judged: dict[str, Record], groups: Groups) -> None:
    numbers = {member: str(number) for number, group in enumerate(groups, start=1) for member in group}
    for member, record in judged.items():
        judged[member] = replace(record, duplicate_group=numbers.get(member, ""))


def _apply(
    judged: dict[str, Record], groups: Groups, reason: str, find: Callable[[list[Record]], list[Record]]
) -> None:
    """Reject for ``reason`` the images that ``find`` returns for each group, of those not yet rejected."""
    for group in groups:
        alive = [judged[member] for member in group if judged[member].status == "ok"]
        for record in find(alive):
            judged[record.member] = replace(record, status="rejected", reason=reason)


def _find_conflicts(group: list[Record]) -> list[Record]:
    return group if len({record.label for record in group}) > 1 else []


def _find_leaks(group: list[Record], kept: Sequence[str]) -> list[Record]:
    """Return the images of all splits but the one that comes first in ``kept``."""
    first = min((record.split for record in group), key=kept.index, default="")
    return [record for record in group if record.split != first]


def _find_copies(group: list[Record]) -> list[Record]:
    """Return all but the first image of each split: copies across splits are left to the leakage policy."""
    firsts = {record.split: record for record in reversed(group)}
    return [record for record in group if firsts[record.split] is not record]


def _remark_near(judged: dict[str, Record], near: Groups) -> None:
    for group in near:
        alive = [judged[member] for member in group if judged[member].status == "ok"]
        if len(alive) > 1:
            for record in alive:
                judged[record.member] = replace(record, reason=record.reason or "near_duplicate")

"""Findings of verification as files, metrics and a line of text."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gender_classifier.common.artifacts import Artifact
from gender_classifier.common.figures import Figure, contact_sheet
from gender_classifier.data.archive import Archive
from gender_classifier.data.images import decode, to_array, to_rgb
from gender_classifier.data.manifest import Record
from gender_classifier.data.names import SPLITS
from gender_classifier.errors import ImageError
from gender_classifier.verify.corrections import Decisions
from gender_classifier.verify.figures import class_balance, image_sizes
from gender_classifier.verify.policies import KEPT_AS
from gender_classifier.verify.quality import QualityTable

_SHEET = 36  # images on a contact sheet
_FLAGGED_SHEET = 24
_THUMBNAIL = 96  # px


def describe_records(
    records: Sequence[Record], archive: Archive, max_pixels: int, quality: QualityTable, decisions: Decisions
) -> Iterator[Artifact]:
    """Yield the report, the metrics file, the table of quality and the figures.

    Args:
        records: with verdicts.
        archive: source of the images on contact sheets.
        max_pixels: larger images are not decoded.
        quality: of the images that could be decoded.
        decisions: numbers of people's decisions; in the report if there are any.
    """
    summary, decided = summarize(records) | {"flagged": quality.count()}, asdict(decisions)
    report = summary | ({"corrections": decided} if any(decided.values()) else {})
    yield Artifact("data/verified/report.json", report, "")
    yield Artifact("metrics/verify.json", {key: summary[key] for key in ("num_ok", "num_rejected", "flagged")})
    yield Artifact("data/verified/quality.csv", quality.tabulate())
    decoded = [record for record in records if record.width]
    fit = [record for record in records if record.status == "ok"]
    rejected = [record for record in records if record.status == "rejected"]
    figures = {
        "class_balance": class_balance(summary["counts"]),
        "image_sizes": image_sizes([record.width for record in decoded], [record.height for record in decoded]),
    }
    for name, figure in figures.items():
        yield Artifact(f"metrics/figures/verify/{name}.png", figure, "")
    samples, rejects = _spread(fit, _SHEET), _spread(rejected, _SHEET // 2)
    beside = ", copies beside what they repeat" if any(record.duplicate_group for record in rejects) else ""
    sheets = {
        "samples": _draw_sheet(archive, max_pixels, samples, f"{len(samples)} of {len(fit):,} images fit to use"),
        "rejects": _draw_sheet(
            archive,
            max_pixels,
            pair_twins(rejects, records),
            f"{len(rejects)} of {len(rejected):,} rejected images{beside}",
        ),
        "flagged": _draw_flagged(archive, max_pixels, records, quality),
    }
    for name, sheet in sheets.items():
        yield Artifact(f"metrics/sheets/verify/{name}.png", sheet, "")


def count_findings(records: Sequence[Record], quality: QualityTable) -> dict[str, float]:
    """Return the run's metrics: number of fit and rejected images, of those rejected for each reason, of each flag."""
    summary = summarize(records)
    rejected = {f"rejected/{name}": found.get("rejected", 0) for name, found in summary["findings"].items()}
    flagged = {f"flagged/{flag}": count for flag, count in quality.count().items()}
    return {"num_ok": summary["num_ok"], "num_rejected": summary["num_rejected"], **rejected, **flagged}


def tell(records: Sequence[Record], quality: QualityTable) -> str:
    """Return one line with the number of fit images, the findings and the image-quality flags."""
    summary = summarize(records)
    findings = summary["findings"].items()
    found = [f"{reason} {verdict} {count}" for reason, counts in findings for verdict, count in counts.items()]
    shared = summary["people_in_several_splits"]
    people = f"; {shared:,} of {summary['people']:,} people are in more than one split of the source" if shared else ""
    counts = [f"{flag} {count}" for flag, count in quality.count().items() if count]
    flagged = f"; flagged {', '.join(counts)}" if counts else ""
    return (
        f"{summary['num_ok']:,} of {len(records):,} images are fit to use; {', '.join(found) or 'no findings'}{flagged}"
        f"{people}"
    )


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the report: counts by split, label and verdict; findings with their consequence; sizes and modes."""
    splits, labels = {record.split for record in records}, sorted({record.label for record in records})
    counts: dict[str, dict[str, dict[str, int]]] = {
        split: {label: {"ok": 0, "rejected": 0} for label in labels} for split in sorted(splits, key=SPLITS.index)
    }
    findings: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        counts[record.split][record.label][record.status] += 1
        if record.reason:
            findings[record.reason]["rejected" if record.status == "rejected" else KEPT_AS[record.reason]] += 1
    decoded = [record for record in records if record.width]
    people: dict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.group:
            people[record.group].add(record.split)
    return {
        "num_images": len(records),
        "num_ok": sum(record.status == "ok" for record in records),
        "num_rejected": sum(record.status == "rejected" for record in records),
        "counts": counts,
        "findings": {reason: dict(sorted(found.items())) for reason, found in sorted(findings.items())},
        "duplicate_groups": len({record.duplicate_group for record in records if record.duplicate_group}),
        "people": len(people),
        "people_in_several_splits": sum(len(found) > 1 for found in people.values()),
        "width_px": _quantiles([record.width for record in decoded]),
        "height_px": _quantiles([record.height for record in decoded]),
        "modes": dict(sorted(Counter(record.mode for record in decoded).items())),
    }


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    if not values:
        return {}
    ordered = sorted(values)
    return {"min": ordered[0], "median": ordered[len(ordered) // 2], "max": ordered[-1]}


def _spread(records: Sequence[Record], most: int) -> Sequence[Record]:
    """Pick at most ``most`` images at equal distances in the list, so from every class and split."""
    count = min(most, len(records))
    return [records[number * len(records) // count] for number in range(count)]


def pair_twins(rejects: Sequence[Record], records: Sequence[Record]) -> list[Record]:
    """Return ``rejects``, those of duplicate groups first, each followed by another image of its group.

    That is the first image in use or, if there is none, the first other rejected one, which is not listed again.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.duplicate_group].append(record)
    pairs, alone = list[Record](), [record for record in rejects if not record.duplicate_group]
    for record in rejects:
        if record.duplicate_group and record not in pairs:
            others = [other for other in groups[record.duplicate_group] if other is not record]
            pairs += [record, min(others, key=lambda other: other.status == "rejected")]
    return pairs + alone


def _draw_sheet(archive: Archive, max_pixels: int, shown: Sequence[Record], title: str) -> Figure:
    def prepare(data: bytes) -> NDArray[np.uint8]:
        return to_array(data, _THUMBNAIL, max_pixels=max_pixels)

    captions = []
    for record in shown:
        about = record.reason if record.status == "rejected" else f"kept, {record.width} × {record.height} px"
        captions.append(_caption(about, record))
    return contact_sheet(_read_images(archive, [record.member for record in shown], prepare), captions, title)


def _draw_flagged(archive: Archive, max_pixels: int, records: Sequence[Record], quality: QualityTable) -> Figure:
    """Draw the worst flagged images in their own shapes, with flag and score."""

    def prepare(data: bytes) -> NDArray[np.uint8]:
        image = to_rgb(decode(data, max_pixels=max_pixels))
        image.thumbnail((_THUMBNAIL, _THUMBNAIL))
        return np.asarray(image)

    by_member = {record.member: record for record in records}
    shown = quality.pick_worst(_FLAGGED_SHEET)
    captions = [_caption(f"{found.flag} {found.score:.2f}", by_member[member]) for member, found in shown]
    images = _read_images(archive, [member for member, _ in shown], prepare)
    return contact_sheet(images, captions, f"{len(shown)} of {len(quality.flags):,} flagged images, worst first")


def _read_images(
    archive: Archive, members: Sequence[str], prepare: Callable[[bytes], NDArray[np.uint8]]
) -> list[NDArray[np.uint8] | None]:
    """Return the images, None for one that has no pixels to show."""
    images: list[NDArray[np.uint8] | None] = []
    for member in members:
        try:
            images.append(prepare(archive.read(member)))
        except ImageError:
            images.append(None)
    return images


def _caption(about: str, record: Record) -> str:
    return f"{about}\n{record.split}/{record.label}\n{PurePosixPath(record.member).name}"

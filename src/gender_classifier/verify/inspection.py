"""Inspect each image by itself: decode, hash and measure it."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from gender_classifier.common.progress import show_progress
from gender_classifier.data.archive import Archive
from gender_classifier.data.file_names import find_other_format
from gender_classifier.data.images import decode, perceptual_hash, shrink_grey, to_rgb
from gender_classifier.data.manifest import Record
from gender_classifier.data.parallel import map_members
from gender_classifier.data.raw_table import read_raw_table
from gender_classifier.errors import DataError, ImageError
from gender_classifier.verify.quality import Quality, measure_quality


class Inspected(NamedTuple):
    """Findings about one image: its record, and its quality or None if it cannot be decoded."""

    record: Record
    quality: Quality | None


def inspect(member: str, data: bytes, *, max_pixels: int) -> Inspected:
    """Decode one image completely and measure it; its record is rejected with a reason if it cannot be decoded.

    Split, label and group are left empty.
    """
    build = partial(Record, member, "", "", hashlib.sha256(data).hexdigest())
    if find_other_format(member, data):
        return Inspected(build(status="rejected", reason="not_an_image"), None)
    try:
        image = decode(data, max_pixels=max_pixels)
        to_rgb(image)  # as preprocess will: some transparent images have nothing to see
    except ImageError as error:
        return Inspected(build(status="rejected", reason=error.reason), None)
    grey = image.convert("L")
    shrunk = shrink_grey(grey)
    return Inspected(build(perceptual_hash(shrunk), *image.size, image.mode), measure_quality(grey, shrunk))


@contextmanager
def inspect_all(archive: Archive, table_path: Path, max_pixels: int) -> Iterator[Iterator[Inspected]]:
    """Inspect every image of an archive on all cores; the workers start immediately and end with the context.

    Args:
        archive: the raw archive.
        table_path: of the table that gives each image's label, split and group.
        max_pixels: larger images are not decoded.

    Raises:
        DataError: the table does not list the members of the archive.
    """
    members = archive.members
    look = partial(inspect, max_pixels=max_pixels)
    with map_members(archive, members, look, ahead=len(members)) as found:
        table = read_raw_table(table_path)
        rows = [(row.member, row.label, row.split, row.group) for row in table.rows]  # without their attributes
        if [row[0] for row in rows] != list(members):
            raise DataError(
                f"{table_path}: does not list the {len(members):,} images of {archive.path} in order; run "
                "`dvc repro -f ingest`"
            )
        labelled = (
            Inspected(replace(record, label=label, split=split, group=group), quality)
            for (record, quality), (_, label, split, group) in zip(found, rows, strict=True)
        )
        yield iter(show_progress(labelled, total=len(members), name="verify"))

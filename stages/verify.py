"""Stage `verify`: decide which images are fit to use, and say why the others are not.

    dvc repro verify                                   seconds; 24,000 images take 10 s on 2 cores
    dvc exp run -S verify.near_duplicates=drop         another policy

Reads data/raw.zip and `verify`; writes data/verified/manifest.csv (a row an image), data/verified/report.json,
metrics/verify.json and metrics/figures/verify/. A data set that lacks a class, or loses more images than
`verify.max_rejected`, stops here, after the report and the pictures are written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import hash_file, short_digest, write_json
from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.images import to_array
from gender_classifier.data.parallel import map_members
from gender_classifier.errors import ImageError
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.stage import run_stage
from gender_classifier.verify.inspection import (
    Record,
    check_fitness,
    inspect,
    judge,
    summarize,
    write_manifest,
)
from gender_classifier.verify.params import VerifyParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gender_classifier.track.run import TrackedRun

_SHEET = 32  # pictures on a contact sheet
_THUMBNAIL = 96  # px


def main(layout: Layout, params: Params) -> None:
    """Inspect every image, judge all together, and write the manifest if the data set is fit."""
    own = params.verify
    look = partial(inspect, max_pixels=own.max_pixels)
    with (
        Archive(layout.raw_archive_path) as archive,
        map_members(archive, archive.members, look, ahead=len(archive.members)) as found,
    ):
        # Here, and below: importing MLflow and Matplotlib takes two seconds, in which the workers decode.
        from gender_classifier.track.run import track

        with track("verify", layout.root, params=asdict(own), data=True) as run:
            _judge_all(layout, own, archive, found, run)


def _judge_all(layout: Layout, own: VerifyParams, archive: Archive, found: Iterator[Record], run: TrackedRun) -> None:
    bar = tqdm(found, total=len(archive.members), desc="verify", unit="img", disable=None, dynamic_ncols=True)
    records = judge(list(bar), own)
    summary = summarize(records)
    metrics = {"num_ok": summary["num_ok"], "num_rejected": summary["num_rejected"]}
    write_json(layout.findings_path, summary)
    write_json(layout.verify_report_path, metrics)
    _draw(layout, archive, records, own.max_pixels)
    rejected = {f"rejected/{name}": one.get("rejected", 0) for name, one in summary["findings"].items()}
    run.log_metrics(metrics | rejected)
    run.log_artifact(layout.findings_path)
    run.log_artifact(layout.figures_dir("verify"))
    check_fitness(records, own)
    write_manifest(layout.manifest_path, records)
    run.set_tags({"data.digest": short_digest(hash_file(layout.manifest_path))})
    print(f"verify: {summary['num_ok']:,} of {len(records):,} images are fit to use; {_tell(summary['findings'])}")


def _tell(findings: dict[str, dict[str, int]]) -> str:
    return ", ".join(f"{name} {what} {count}" for name, found in findings.items() for what, count in found.items()) or (
        "nothing to remark"
    )


def _draw(layout: Layout, archive: Archive, records: Sequence[Record], max_pixels: int) -> None:
    from gender_classifier.common.figures import save_figure
    from gender_classifier.verify.figures import class_balance, image_sizes

    decoded = [record for record in records if record.width]
    fit = [record for record in records if record.status == "ok"]
    rejected = [record for record in records if record.status == "rejected"]
    sheet = partial(_draw_sheet, archive, max_pixels)
    figures = {
        "class_balance": class_balance(summarize(records)["counts"]),
        "image_sizes": image_sizes([one.width for one in decoded], [one.height for one in decoded]),
        "samples": sheet(_spread(fit), f"{min(_SHEET, len(fit))} of {len(fit):,} images that are fit to use"),
        "rejects": sheet(_spread(rejected), f"{min(_SHEET, len(rejected))} of {len(rejected):,} rejected images"),
    }
    for name, figure in figures.items():
        save_figure(figure, layout.figures_dir("verify") / f"{name}.png")


def _spread(records: Sequence[Record]) -> Sequence[Record]:
    """Pick images evenly over the whole list: from every class and split."""
    count = min(_SHEET, len(records))
    return [records[number * len(records) // count] for number in range(count)]


def _draw_sheet(archive: Archive, max_pixels: int, records: Sequence[Record], title: str) -> Figure:
    from gender_classifier.common.figures import contact_sheet

    images: list[NDArray[np.uint8] | None] = []
    captions = []
    for record in records:
        try:
            images.append(to_array(archive.read(record.member), _THUMBNAIL, max_pixels=max_pixels))
        except ImageError:
            images.append(None)
        about = record.reason if record.status == "rejected" else f"{record.width} × {record.height} px"
        captions.append(f"{record.split}/{record.label}\n{PurePosixPath(record.member).name}\n{about}")
    return contact_sheet(images, captions, title)


if __name__ == "__main__":
    run_stage("verify", main, __doc__)

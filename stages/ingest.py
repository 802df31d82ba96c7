"""Stage `ingest`: take one snapshot of the source that params.yaml names.

    dvc repro ingest                                   the built-in sample, seconds
    dvc exp run -S source=kaggle                       the real data set, 270 MB over the network
    dvc repro --force --single-item ingest             the same source anew

Reads `source` and `ingest`; writes data/raw.zip, data/raw.json and metrics/ingest.json.
"""

from __future__ import annotations

from dataclasses import asdict, replace

import _source  # noqa: F401  before anything of the library
from gender_classifier.checkout import find_main_root
from gender_classifier.file_names import describe_value
from gender_classifier.files import short_digest, write_json
from gender_classifier.layout import Layout
from gender_classifier.params import Params
from gender_classifier.sources import ingest
from gender_classifier.stage import run_stage
from gender_classifier.terminal import printable
from gender_classifier.tracking import track


def main(layout: Layout, params: Params) -> None:
    """Write the archive and say where it came from."""
    own = params.ingest
    with track("ingest", layout.root, params=asdict(own), data=True) as run:
        snapshot = ingest(own, layout.raw_archive_path, base_dir=find_main_root(layout.root))
        snapshot = replace(snapshot, source=describe_value(snapshot.source))  # it is shared, with the remote too
        metrics = {"num_raw": snapshot.num_images}
        write_json(layout.snapshot_path, asdict(snapshot))
        write_json(layout.ingest_report_path, metrics)
        run.log_metrics(metrics)
        run.set_tags({"raw.digest": short_digest(snapshot.sha256)})
        run.log_artifact(layout.snapshot_path)
    source = printable(own.source)
    print(f"ingest: {snapshot.num_images:,} images from {source}, SHA-256 {short_digest(snapshot.sha256)}…")
    for line in (snapshot.note, *snapshot.remarks):
        if line:
            print(printable(f"ingest: {line}"))


if __name__ == "__main__":
    run_stage("ingest", main, __doc__)

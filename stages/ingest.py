"""Stage `ingest`: take a snapshot of the source named in params.yaml.

    dvc repro ingest                                   the built-in sample, seconds
    dvc exp run -S source=kaggle                       the real data set, 270 MB over the network
    dvc repro --force --single-item ingest             the same source, read again

Reads `source` and `ingest`; writes data/raw.zip, data/raw.csv (label, split, group and attributes of each image),
data/raw.json and metrics/ingest.json.
"""

from dataclasses import asdict

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import short_digest
from gender_classifier.common.paths import Layout, find_main_root
from gender_classifier.common.terminal import printable
from gender_classifier.ingest.report import describe_classes, describe_snapshot
from gender_classifier.ingest.sources import ingest
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.publish import publish
from gender_classifier.pipeline.stage import point_to, run_stage
from gender_classifier.track.run import track


def main(layout: Layout, params: Params) -> None:
    """Write the archive and a description of its source."""
    with track("ingest", layout.root, params=asdict(params.ingest), data=True) as run:
        archive_path, table_path = layout.raw_archive_path, layout.raw_table_path
        snapshot = ingest(params.ingest, archive_path, table_path, base_dir=find_main_root(layout.root))
        publish(layout.root, describe_snapshot(snapshot), run)
        run.log_metrics({"num_raw": snapshot.num_images})
        run.set_tags({"raw.digest": short_digest(snapshot.sha256)})
    source, digest = printable(snapshot.source), short_digest(snapshot.sha256)
    print(f"ingest: {snapshot.num_images:,} images from {source}, SHA-256 {digest}…")
    classes = describe_classes(snapshot.classes, snapshot.counts)
    for line in (f"{snapshot.layout or 'drawn'}; classes {classes}", snapshot.note, *snapshot.remarks):
        if line:
            print(printable(f"ingest: {line}"))
    point_to("ingest", run.place, "data/raw.json", "data/raw.csv")


if __name__ == "__main__":
    run_stage("ingest", main, __doc__)

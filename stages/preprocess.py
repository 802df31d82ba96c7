"""Stage `preprocess`: resize images, pack them into arrays, and split them into train, val and test.

    dvc repro preprocess                               seconds; 24,000 images take 9 s on 2 cores

Reads data/raw.zip, data/raw.csv, the manifest, `preprocess`, `ingest.classes` (their order) and `verify.max_pixels`;
writes data/processed/ (uint8 images, labels and an index per split, the groups of train, a table of all images,
statistics and histograms of train), metrics/preprocess.json and metrics/figures/preprocess/. Images are written as they
are decoded, so memory does not grow with their number.
"""

from dataclasses import asdict

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import hash_file, short_digest
from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.dataset import tag_corrections
from gender_classifier.data.groups import name_groups
from gender_classifier.data.layouts.naming import order_classes
from gender_classifier.data.manifest import read_manifest
from gender_classifier.data.raw_table import read_raw_table
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.stage import point_to, run_stage
from gender_classifier.preprocess.packing import pack_all, write_splits
from gender_classifier.preprocess.splits import read_source_labels, split_records


def main(layout: Layout, params: Params) -> None:
    """Write the arrays of the three splits and the statistics that training needs."""
    settings = params.preprocess
    records = read_manifest(layout.manifest_path)
    source_labels = read_source_labels(records, layout.raw_table_path)
    splits, corrections = split_records(records, settings, source_labels)
    groups = {record.member: name for record, name in zip(records, name_groups(records), strict=True)}
    classes = order_classes((record.label for record in records), params.ingest.classes)
    with (
        Archive(layout.raw_archive_path) as archive,
        pack_all(archive, splits, settings.image_size, params.verify.max_pixels) as packed,
    ):
        # Importing MLflow and Matplotlib takes 2 s, during which the workers decode.
        from gender_classifier.pipeline.publish import publish
        from gender_classifier.preprocess.report import describe_splits
        from gender_classifier.track.run import track

        with track("preprocess", layout.root, params=asdict(settings), data=True) as run:
            table = read_raw_table(layout.raw_table_path)
            digest = hash_file(layout.manifest_path)
            statistics = write_splits(layout, splits, packed, settings.image_size, classes, groups, digest, corrections)
            publish(layout.root, describe_splits(splits, statistics, classes, table, groups), run)
            run.log_artifact(layout.dataset_path)
            run.log_metrics({f"num_{name}": len(records) for name, records in splits.items()})
            run.set_tags({"data.digest": short_digest(digest), **tag_corrections(corrections)})
    print("preprocess: " + ", ".join(f"{len(records):,} {name}" for name, records in splits.items()))
    point_to("preprocess", run.place, "metrics/figures/preprocess/")


if __name__ == "__main__":
    run_stage("preprocess", main, __doc__)

"""Stage `verify`: check all images and decide which are used.

    dvc repro verify                                   seconds; 24,000 images take 10 s on 2 cores
    dvc exp run -S verify.near_duplicates=drop         another policy

Reads data/raw.zip, data/raw.csv, data/corrections.csv (people's decisions about labels) and `verify`; writes
data/verified/manifest.csv (one row per image), data/verified/quality.csv (scores and flags), data/verified/report.json,
metrics/verify.json, metrics/figures/verify/ and metrics/sheets/verify/. The stage fails, after writing all but the
manifest, if a class is missing or more images than `verify.max_rejected` are rejected.
"""

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import hash_file, short_digest
from gender_classifier.common.paths import Layout
from gender_classifier.common.schema import flatten
from gender_classifier.data.archive import Archive
from gender_classifier.data.corrections import read_corrections
from gender_classifier.data.manifest import write_manifest
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.stage import point_to, run_stage
from gender_classifier.verify.corrections import check_corrections
from gender_classifier.verify.inspection import inspect_all
from gender_classifier.verify.policies import check_fitness, judge
from gender_classifier.verify.quality import assess


def main(layout: Layout, params: Params) -> None:
    """Inspect the images, apply the policies, and write the manifest if the data set is usable."""
    policy = params.verify
    with (
        Archive(layout.raw_archive_path) as archive,
        inspect_all(archive, layout.raw_table_path, policy.max_pixels) as inspected,
    ):
        # Importing MLflow and Matplotlib takes 2 s, during which the workers decode.
        from gender_classifier.pipeline.publish import publish
        from gender_classifier.track.run import track
        from gender_classifier.verify.report import count_findings, describe_records, tell

        with track("verify", layout.root, params=dict(flatten(policy)), data=True) as run:
            found, quality = assess(inspected, policy.quality)
            corrections = read_corrections(layout.corrections_path)
            decisions = check_corrections(found, corrections, layout.corrections_path)
            records = judge(found, policy, corrections)
            publish(layout.root, describe_records(records, archive, policy.max_pixels, quality, decisions), run)
            run.log_metrics(count_findings(records, quality))
            check_fitness(records, policy, corrections)
            write_manifest(layout.manifest_path, records)
            run.set_tags({"data.digest": short_digest(hash_file(layout.manifest_path))})
    print(f"verify: {tell(records, quality)}")
    if corrections:
        print(f"verify: {decisions.tell(layout.corrections_path)}")
    point_to("verify", run.place, "data/verified/report.json", "metrics/figures/verify/")


if __name__ == "__main__":
    run_stage("verify", main, __doc__)

"""Stage `verify`: decide which images are fit to use, and say why the others are not.

    dvc repro verify                                   seconds; 24,000 images take 10 s on 2 cores
    dvc exp run -S verify.near_duplicates=drop         another policy

Reads data/raw.zip and `verify`; writes data/verified/manifest.csv (a row an image), data/verified/report.json,
metrics/verify.json, metrics/figures/verify/ and metrics/sheets/verify/. A data set that lacks a class, or loses more
images than `verify.max_rejected`, stops here, after the report and the figures are written.
"""

from dataclasses import asdict

import _source  # noqa: F401  before anything of the library
from gender_classifier.common.files import hash_file, short_digest
from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.data.manifest import write_manifest
from gender_classifier.pipeline.params import Params
from gender_classifier.pipeline.stage import run_stage
from gender_classifier.verify.inspection import inspect_all
from gender_classifier.verify.policies import check_fitness, judge


def main(layout: Layout, params: Params) -> None:
    """Inspect every image, judge all together, and write the manifest if the data set is fit."""
    policy = params.verify
    with Archive(layout.raw_archive_path) as archive, inspect_all(archive, policy.max_pixels) as inspected:
        # Importing MLflow and Matplotlib takes two seconds, in which the workers decode.
        from gender_classifier.pipeline.publish import publish
        from gender_classifier.track.run import track
        from gender_classifier.verify.report import count_findings, describe_records, tell

        with track("verify", layout.root, params=asdict(policy), data=True) as run:
            records = judge(list(inspected), policy)
            publish(layout.root, describe_records(records, archive, policy.max_pixels), run)
            run.log_metrics(count_findings(records))
            check_fitness(records, policy)
            write_manifest(layout.manifest_path, records)
            run.set_tags({"data.digest": short_digest(hash_file(layout.manifest_path))})
    print(f"verify: {tell(records)}")


if __name__ == "__main__":
    run_stage("verify", main, __doc__)

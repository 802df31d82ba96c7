"""Images/s of the stages `verify` and `preprocess`, start-up included, and of one pass of the old loop's decoding.

    dvc repro ingest                           (set `source` to the data to measure on)
    python benchmarks/preprocess.py            a minute on 2 cores with 24,000 images

The old loop decodes and resizes every image in every epoch, in one thread; the stages do it once. The stages run as
under DVC, in a temporary folder with its own MLflow store.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from old_loop import build_decoder

from gender_classifier.common.paths import Layout
from gender_classifier.data.archive import Archive
from gender_classifier.track.store import connect

ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    source = Layout(Path.cwd())
    with Archive(source.raw_archive_path) as archive:
        count = len(archive.members)
    seconds = {"old loop, one pass of decoding": time_old_decoding(source)}
    with tempfile.TemporaryDirectory() as name:
        folder = Layout(Path(name))
        folder.raw_archive_path.parent.mkdir()
        shutil.copy(source.params_path, folder.params_path)
        os.link(source.raw_archive_path, folder.raw_archive_path)
        shutil.copy(source.raw_table_path, folder.raw_table_path)
        connect(folder.root)  # create the tables of the MLflow store, which exist in every run but the first
        seconds |= {stage: time_stage(stage, folder.root) for stage in ("verify", "preprocess")}
    seconds["verify + preprocess"] = seconds["verify"] + seconds["preprocess"]
    for what, took in seconds.items():
        print(f"{what:32} {took:6.1f} s  {count / took:7.0f} images/s")
    if options.json:
        options.json.write_text(json.dumps({"images": count, "seconds": seconds}, indent=2) + "\n")


def time_old_decoding(layout: Layout) -> float:
    began = time.perf_counter()
    with Archive(layout.raw_archive_path) as archive:
        decode = build_decoder(archive, 64)
        for start in range(0, len(archive.members), 16):
            decode(archive.members[start : start + 16])
    return time.perf_counter() - began


def time_stage(stage: str, folder: Path) -> float:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    began = time.perf_counter()
    subprocess.run([sys.executable, ROOT / "stages" / f"{stage}.py"], cwd=folder, env=environment, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()

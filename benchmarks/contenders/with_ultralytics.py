"""Ultralytics' command `yolo classify`, from its YAML without weights, with its defaults but for those named here.

`imgsz=64`, `device=cpu`, `amp=False`, and `time=` with what is left of the budget. With `time=` alone the schedule
would start as one for 100 epochs; so a first command measures the speed on a few images, and `epochs=` is the number
that fits. Ultralytics is under the AGPL: only its command runs, in an environment of its own.

    python with_ultralytics.py train IMAGES OUT DEADLINE YOLO
    python with_ultralytics.py predict OUT FOLDER CSV YOLO
"""

import csv
import json
import math
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL, SIZE, CLASSES = "yolo26n-cls.yaml", 64, ("female", "male")
_PROBE_IMAGES = 640
BATCH = 16
_SCAN = 3000  # images/s, about
# Of the progress bar: the epoch, the batches done, and the time since the epoch began, such as 18.5s or 1:02.
_PROGRESS = re.compile(r"^\S*\s*(\d+)/\d+\s+\S+G\s.*\s(\d+)/\d+\s.*?(?:it/s|s/it)\s+([\d:.]+)")


def train(images: Path, out: Path, deadline: float, yolo: str) -> None:
    """Train until the deadline, s since 1970."""
    sizes = {name: sum(1 for _ in (images / name).glob("*/*")) for name in ("train", "val")}
    with tempfile.TemporaryDirectory() as folder:
        for name, count in (("train", _PROBE_IMAGES), ("val", 32)):
            for label in CLASSES:
                (Path(folder) / "few" / name / label).mkdir(parents=True)
                for path in sorted((images / name / label).iterdir())[: count // 2]:
                    (Path(folder) / "few" / name / label / path.name).symlink_to(path.resolve())
        began = time.time()
        text = run(yolo, "train", data=Path(folder) / "few", epochs=1, project=folder, name="few", **common())
        seen, seconds = read_progress(text)
        speed, rest = seen / seconds, time.time() - began - seconds
    # Outside `time=`: the start, a look at each image, and two validations at the end, the second of the best weights.
    rest += sizes["train"] / _SCAN + 2 * sizes["val"] / (3 * speed)
    seconds = deadline - time.time() - rest
    epochs = max(1, math.ceil(seconds * speed / sizes["train"]))
    text = run(
        yolo, "train", data=images.resolve(), epochs=epochs, time=f"{seconds / 3600:.6f}", project=out.resolve(),
        name="run", **common(),
    )  # fmt: skip
    seen, seconds = read_progress(text)
    results = list(csv.DictReader((out / "run" / "results.csv").open()))
    accuracy = max(float(row["metrics/accuracy_top1"]) for row in results)
    parameters = int(re.findall(r"summary: .*? ([\d,]+) parameters", text)[-1].replace(",", ""))
    report = {
        "parameters": parameters, "batch_size": BATCH, "images": seen, "train_seconds": seconds,
        "val_accuracy": accuracy, "epochs": seen / sizes["train"], "schedule_epochs": epochs,
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report))


def read_progress(text: str) -> tuple[int, float]:
    """Return the images that were trained on, and the seconds that took, from the last state of each epoch's bar."""
    last = {}
    for line in re.split(r"[\r\n]", text):
        if found := _PROGRESS.search(line):
            minutes, _, rest = found[3].rpartition(":")
            last[found[1]] = int(found[2]) * BATCH, 60 * int(minutes or 0) + float(rest)
    return sum(seen for seen, _ in last.values()), sum(seconds for _, seconds in last.values())


def common() -> dict[str, object]:
    """Return the options that both trainings share."""
    return {"model": MODEL, "imgsz": SIZE, "pretrained": False, "amp": False, "device": "cpu", "plots": False}


def run(yolo: str, mode: str, **options: object) -> str:
    """Run the command and return its output."""
    command = [yolo, "classify", mode, *(f"{key}={value}" for key, value in options.items())]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, flush=True)
    if done.returncode:
        sys.exit(f"yolo classify {mode} ended with status {done.returncode}")
    return done.stdout


def predict(out: Path, folder: Path, table: Path, yolo: str) -> None:
    """Write the name of each file in ``folder`` and its predicted class into a CSV file."""
    with tempfile.TemporaryDirectory() as scratch:
        run(
            yolo, "predict", model=out / "run" / "weights" / "best.pt", source=folder, imgsz=SIZE, device="cpu",
            save=False, save_txt=True, verbose=False, project=scratch, name="run",
        )  # fmt: skip
        found = {path.stem: path.read_text() for path in (Path(scratch) / "run" / "labels").iterdir()}
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label"])
        # The first line has the most probable class: its probability and its name.
        writer.writerows((path.name, found[path.stem].split()[1]) for path in sorted(folder.iterdir()))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
    else:
        predict(*map(Path, sys.argv[2:5]), sys.argv[5])

"""Accuracy at equal time: this project and what people would use instead, on the same images, cores and budget.

    python benchmarks/rivals.py faces.zip --foreign foreign.zip --minutes 2      20 minutes on 2 cores
    python benchmarks/rivals.py faces.zip --foreign foreign.zip --minutes 10     80 minutes

Each contender (benchmarks/contenders/) trains from scratch at 64 px, in a process of its own, with its library's own
reading of a folder, augmentation, optimizer and schedule, which ends with the budget. The wall clock counts from the
start of the process to its end: imports, a few seconds that measure the speed, reading and validation included. Each
then classifies the test images, the foreign ones, and 2,000 test images in a new process, which is timed.

`Training/` of the zip is split into train and a tenth of val, at random; `Validation/` is the test set. The foreign set
is a zip with a labels.csv (path, label, age), of which people of 18 years and older count.

The libraries are installed from PyPI, each into a virtual environment that also sees the project's packages, below
--folder. Let nothing else run meanwhile.
"""

import argparse
import compileall
import csv
import importlib.metadata
import json
import os
import random
import shutil
import site
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from gender_classifier.metrics.scores import balanced_interval, wilson_interval

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "benchmarks" / "contenders"
CLASSES = ("female", "male")
COLD, ADULT = 2000, 18  # images; years
_SAMPLING = 0.5  # s between two looks at the memory


@dataclass(frozen=True)
class Contender:
    """Something to compare.

    Attributes:
        title: for the table.
        script: of `contenders/`.
        requirement: what to install from PyPI; an empty text if the project has it.
        tool: command in its environment, whose path the script is told.
        changes: of our params.
    """

    title: str
    script: str
    requirement: str = ""
    tool: str = ""
    changes: tuple[str, ...] = ()


CONTENDERS = {
    "alexnet": Contender("ours, AlexNet, `params.yaml`", "ours"),
    "resnet10": Contender("ours, ResNet-10, wider light and geometry", "ours", changes=("PRETRAINED_PARAMS",)),
    "timm": Contender("timm, ResNet-10-T, recipe A3", "with_timm", "timm==1.0.31"),
    "torchvision": Contender("torchvision, ResNet-18, defaults of its reference", "with_torchvision"),
    "ultralytics": Contender("Ultralytics, YOLO26n-cls, defaults", "with_ultralytics", "ultralytics==8.4.190", "yolo"),
    "fastai": Contender("fastai, XResNet-18, its book's baseline", "with_fastai", "fastai==2.8.12"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="zip with Training/ and Validation/, a folder per class in each")
    parser.add_argument("--foreign", type=Path, help="zip with a labels.csv; without it, its column stays empty")
    parser.add_argument("--minutes", type=float, default=2, help="budget of each training (default: 2)")
    parser.add_argument("--images", type=int, help="use only so many images for training, and for each test (a trial)")
    parser.add_argument(
        "--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="which, in turn (default: all)"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir()) / "gender-classifier-rivals",
        help="for environments, images and models (default: in the temporary folder)",
    )
    parser.add_argument("--json", type=Path, help="write the figures here after each contender; those of others stay")
    options = parser.parse_args()
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for path in site.getsitepackages():  # `make setup` leaves that to the first process: here to the first contender
        compileall.compile_dir(path, quiet=2, workers=0)
    pythons = {name: make_environment(folder / "environments", CONTENDERS[name]) for name in options.contenders}
    truth = unpack(options.source, options.foreign, folder / "images", options.images)
    rows = read_rows(options.json, options.minutes * 60, options.contenders)
    for name in options.contenders:
        out = folder / "models" / name
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        row = measure(CONTENDERS[name], pythons[name], folder, out, options.minutes * 60, truth)
        rows.append(row | {"contender": name})
        print(json.dumps(rows[-1]), flush=True)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=2) + "\n")
    print(tabulate(rows))


def read_rows(path: Path | None, budget: float, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of an earlier run with the same budget, but those of ``names``."""
    rows = json.loads(path.read_text()) if path and path.exists() else []
    return [row for row in rows if row["budget"] == budget and row["contender"] not in names]


def make_environment(folder: Path, contender: Contender) -> Path:
    """Return the Python of the contender's environment; make that first unless it is there.

    What the project has is not installed again: torch, torchvision and all others that both need.
    """
    if not contender.requirement:
        return Path(sys.executable)
    target = folder / contender.requirement.replace("==", "-")
    python = target / "bin" / "python"
    if (target / "ready").exists():
        return python
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or "uv"
    subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, target], check=True)
    (packages,) = target.glob("lib/python*/site-packages")
    lines = (f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (packages / "project.pth").write_text("".join(lines))
    present = {found.metadata["Name"] for found in importlib.metadata.distributions()} | {"spacy"}  # fastai's, for text
    overrides = target / "overrides.txt"
    overrides.write_text("".join(f"{name}; sys_platform == 'never'\n" for name in sorted(present)))
    command = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, "--overrides", overrides]
    subprocess.run([*command, contender.requirement], check=True)
    if (yolo := target / "bin" / "yolo").exists():
        # Else it would log to MLflow, which the project has, and send statistics.
        subprocess.run([yolo, "settings", "mlflow=False", "sync=False"], check=True, env=build_environ(folder.parent))
    (target / "ready").touch()
    return python


def unpack(source: Path, foreign: Path | None, folder: Path, limit: int | None) -> dict[str, dict[str, str]]:
    """Write the images of each set under numbers; return the labels of `test` and `foreign` by file name.

    Training images lie in class folders, those to classify all in one folder, so that their path gives nothing away.
    """
    shutil.rmtree(folder, ignore_errors=True)
    rng, truth = random.Random(0), {"test": {}, "foreign": {}}
    with zipfile.ZipFile(source) as archive:
        for split in ("Training", "Validation"):
            names = sorted(name for name in archive.namelist() if name.startswith(f"{split}/") and name[-1] != "/")
            rng.shuffle(names)
            for number, name in enumerate(names[:limit]):
                label, file_name = name.split("/")[-2], f"{number:05}.jpg"
                if split == "Training":
                    part = "val" if number < len(names[:limit]) // 10 else "train"
                    write(folder / "learn" / part / label / file_name, archive.read(name))
                else:
                    write(folder / "test" / file_name, archive.read(name))
                    truth["test"][file_name] = label
    if foreign:
        with zipfile.ZipFile(foreign) as archive:
            lines = archive.read("labels.csv").decode().splitlines()
            rows = [row for row in csv.DictReader(lines) if int(row.get("age") or ADULT) >= ADULT]
            rng.shuffle(rows)
            for number, row in enumerate(rows[:limit]):
                file_name = f"{number:05}.jpg"
                write(folder / "foreign" / file_name, archive.read(row["path"]))
                truth["foreign"][file_name] = row["label"]
    for file_name in list(truth["test"])[:COLD]:
        write(folder / "cold" / file_name, (folder / "test" / file_name).read_bytes())
    return truth


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def measure(
    contender: Contender, python: Path, folder: Path, out: Path, budget: float, truth: dict[str, dict[str, str]]
) -> dict[str, Any]:
    """Train and predict; return a row of the table."""
    script, environ, images = SCRIPTS / f"{contender.script}.py", build_environ(folder), folder / "images"
    tool = [python.parent / contender.tool] if contender.tool else []
    row: dict[str, Any] = {"title": contender.title, "version": contender.requirement, "budget": budget}
    command = [python, script, "train", images / "learn", out, f"{time.time() + budget:.2f}", *tool]
    row["seconds"], row["peak_bytes"] = run_watched([*command, *list_changes(contender)], environ, out / "train.log")
    row |= json.loads((out / "report.json").read_text())
    is_ours = contender.script == "ours"
    if is_ours:
        run_watched([python, script, "export", out], environ, out / "export.log")
    for name in ("test", "foreign", "cold"):
        if not (images / name).is_dir():
            continue
        table, log = out / f"{name}.csv", out / f"predict-{name}.log"
        command = [python, script, "predict", out, images / name, table, *tool]
        if is_ours:
            command = [python, "-m", "gender_classifier", "predict", "--format", "csv", "--threshold", "0"]
            command += ["--model", out / "model.onnx", images / name]
        seconds, peak = run_watched(command, environ, log, table if is_ours else None)
        if name == "cold":
            row |= {"cold_seconds": seconds, "cold_peak_bytes": peak}
        else:
            row |= score(table, truth[name], name)
    return row


def list_changes(contender: Contender) -> list[str]:
    """Return changes of our params as KEY=VALUE; a name of the Makefile stands for what it holds."""
    if not contender.changes:
        return []
    shows = [f"--eval=show: ; @echo $({name})" for name in contender.changes]
    command = ["make", "--silent", "--no-print-directory", "-C", ROOT, *shows, "show"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()


def build_environ(folder: Path) -> dict[str, str]:
    """Return the environment variables of every contender: no settings, caches or networks of the user's own."""
    places = ("YOLO_CONFIG_DIR", "FASTAI_HOME", "TORCH_HOME", "HF_HOME", "MPLCONFIGDIR")
    settings = {"PYTHONPATH": str(ROOT / "src"), "YOLO_AUTOINSTALL": "false", "YOLO_OFFLINE": "true"}
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {name: str(folder / "settings") for name in places} | settings


def run_watched(
    command: Sequence[object], environ: dict[str, str], log: Path, output: Path | None = None
) -> tuple[float, int]:
    """Run a command; return its seconds, and the peak of the proportional set size of its process tree, bytes.

    Standard output goes to ``output`` if it is given, everything else to ``log``.

    Raises:
        SystemExit: the command failed.
    """
    with ExitStack() as stack:
        errors = stack.enter_context(log.open("wb"))
        rows = stack.enter_context(output.open("wb")) if output else errors
        began, peak = time.monotonic(), 0
        process = subprocess.Popen(list(map(str, command)), stdout=rows, stderr=errors, env=environ, cwd=log.parent)
        while True:
            peak = max(peak, add_memory(process.pid))
            try:
                status = process.wait(_SAMPLING)
                break
            except subprocess.TimeoutExpired:
                continue
        seconds = time.monotonic() - began
    if status:
        raise SystemExit(f"{log}: the command ended with status {status}: {' '.join(map(str, command))}")
    return seconds, peak


def add_memory(pid: int) -> int:
    """Return the memory of a process and its descendants, bytes; a page that several share counts once."""
    total = 0
    with suppress(psutil.Error):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total


def score(table: Path, truth: dict[str, str], name: str) -> dict[str, Any]:
    """Return accuracy and balanced accuracy with 95 % intervals, and the recall of each class."""
    with table.open(newline="") as file:
        found = {Path(row["name"]).name: row["label"] for row in csv.DictReader(file)}
    if set(found) != set(truth):
        raise SystemExit(f"{table}: has {len(found)} images, the set has {len(truth)}")
    totals = [sum(label == called for label in truth.values()) for called in CLASSES]
    hits = [sum(found[key] == label == called for key, label in truth.items()) for called in CLASSES]
    recalls = [hit / total for hit, total in zip(hits, totals, strict=True)]
    return {
        f"{name}_accuracy": sum(hits) / sum(totals),
        f"{name}_accuracy_interval": wilson_interval(sum(hits), sum(totals)),
        f"{name}_balanced_accuracy": sum(recalls) / 2,
        f"{name}_balanced_accuracy_interval": balanced_interval(hits, totals),
        f"{name}_recalls": dict(zip(CLASSES, recalls, strict=True)),
    }  # fmt: skip


def show_interval(row: Mapping[str, Any], key: str) -> str:
    """Return a figure with its interval; an empty text without it."""
    return f"{row[key]:.4f} ({' to '.join(f'{end:.3f}' for end in row[f'{key}_interval'])})" if key in row else ""


def tabulate(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table in Markdown, best test accuracy first."""
    head = (
        "contender", "parameters", "batch", "epochs", "test accuracy", "foreign balanced accuracy", "images/s",
        "peak memory: training, predicting", "2,000 files, cold", "training, s",
    )  # fmt: skip
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in sorted(rows, key=lambda row: -row["test_accuracy"]):
        cells = (
            row["title"], f"{row['parameters'] / 1e6:.2f} M", row["batch_size"], f"{row['epochs']:.2f}",
            show_interval(row, "test_accuracy"), show_interval(row, "foreign_balanced_accuracy"),
            f"{row['images'] / row['train_seconds']:,.0f}",
            f"{row['peak_bytes'] / 2**20:,.0f}, {row['cold_peak_bytes'] / 2**20:,.0f} MiB",
            f"{row['cold_seconds']:.1f} s", f"{row['seconds']:.0f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

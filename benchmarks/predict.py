"""Speed and memory of `gender-classifier predict`: cold start, a folder, decoding and inference alone.

    python benchmarks/predict.py faces.zip      about a minute on 2 cores with 12,000 images

Commands are timed as whole processes. Each figure is the fastest of its repeats, which other work has disturbed least.
Decoding alone and inference alone use as many threads as the command.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "src"))

from gender_classifier.predict.inputs import find_pictures  # noqa: E402
from gender_classifier.predict.predictor import BATCH_SIZE, Predictor, count_cores, map_in_order  # noqa: E402

# Runs the command and prints its peak memory, KiB.
_MEASURED = (
    "import sys\n"
    "from gender_classifier.cli.main import main\n"
    "status = main(sys.argv[1:])\n"
    "sys.stdout.flush()\n"
    "peak = [line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')]\n"
    "print('PEAK', *peak, file=sys.stderr)\n"
    "sys.exit(status)\n"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="zip or folder with at least 1,200 images")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "model.onnx")
    parser.add_argument("--repeats", type=int, default=3, help="of which the fastest counts (default: 3)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = _unpack(options.source, Path(folder)) if options.source.is_file() else options.source
        found = measure(source.resolve(), options.model.resolve(), Path(folder), options.repeats)
    print(f"{'':44}{'':>12}")
    for name, (value, unit) in found.items():
        print(f"{name:44}{value:>12,.2f} {unit}" if value < 100 else f"{name:44}{value:>12,.0f} {unit}")
    if options.json:
        options.json.write_text(json.dumps({name: value for name, (value, _) in found.items()}, indent=2) + "\n")


def measure(source: Path, model: Path, scratch: Path, repeats: int) -> dict[str, tuple[float, str]]:
    """Return each figure with its unit."""
    names = [name for name, _ in find_pictures([str(source)])]
    tenth = scratch / "tenth"
    tenth.mkdir()
    for number, name in enumerate(names[: len(names) // 10]):
        (tenth / f"{number}{Path(name).suffix}").symlink_to(name)
    on_image = _fastest(lambda: _run(model, names[0]), 3 * repeats)
    on_folder = _fastest(lambda: _run(model, str(source)), repeats)
    on_tenth = _fastest(lambda: _run(model, str(tenth)), repeats)
    return {
        "images": (len(names), ""),
        "cores": (count_cores(), ""),
        "one image, cold, whole process": (on_image[0], "s"),
        "folder, whole process": (on_folder[0], "s"),
        "folder, decoding included": (len(names) / on_folder[0], "images/s"),
        "decoding alone": (_time_decoding(model, names, repeats), "images/s"),
        "inference alone": (_time_inference(model, repeats), "images/s"),
        "peak memory, one image": (on_image[1], "MiB"),
        "peak memory, a tenth of the folder": (on_tenth[1], "MiB"),
        "peak memory, the folder": (on_folder[1], "MiB"),
    }


def _run(model: Path, path: str) -> tuple[float, float]:
    """Run `predict` on ``path``; return its time, s, and its peak memory, MiB."""
    command = [sys.executable, "-c", _MEASURED, "predict", "--model", str(model), "--format", "csv", path]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    with tempfile.TemporaryFile() as rows:
        began = time.perf_counter()
        done = subprocess.run(command, stdout=rows, stderr=subprocess.PIPE, text=True, check=True, env=environment)
        took = time.perf_counter() - began
    return took, int(done.stderr.split()[-1]) / 1024


def _time_decoding(model: Path, names: Sequence[str], repeats: int) -> float:
    predictor = Predictor(model, threads=1)

    def decode(batch: Sequence[str]) -> None:
        for name in batch:
            predictor.prepare(Path(name).read_bytes())

    return _rate(lambda: map_in_order(decode, _cut(names)), len(names), repeats)


def _time_inference(model: Path, repeats: int, count: int = 6400) -> float:
    predictor = Predictor(model, threads=1)
    size = predictor.image_size
    images = np.random.default_rng(0).integers(0, 256, (BATCH_SIZE, size, size, 3), dtype=np.uint8)
    batches = [images] * (count // BATCH_SIZE)
    return _rate(lambda: map_in_order(predictor.compute_probs, batches), len(batches) * BATCH_SIZE, repeats)


def _rate(work: Callable[[], Iterator[object]], count: int, repeats: int) -> float:
    def timed() -> tuple[float, float]:
        began = time.perf_counter()
        for _ in work():
            pass
        return time.perf_counter() - began, 0

    return count / _fastest(timed, repeats)[0]


def _fastest(run: Callable[[], tuple[float, float]], repeats: int) -> tuple[float, float]:
    """Return the shortest time and the highest memory of the repeats."""
    times, peaks = zip(*(run() for _ in range(repeats)), strict=True)
    return min(times), max(peaks)


def _cut(names: Sequence[str]) -> Iterator[list[str]]:
    remaining = iter(names)
    while batch := list(itertools.islice(remaining, BATCH_SIZE)):
        yield batch


def _unpack(path: Path, folder: Path) -> Path:
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "images")
    return folder / "images"


if __name__ == "__main__":
    main()

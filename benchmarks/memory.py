"""Speed of training on a data set ten times larger than the memory limit (Linux, root: it creates a control group).

    python benchmarks/memory.py                15 minutes on 2 cores; 10 GiB in the temporary folder

The images are noise: only their number matters. The limit covers everything that the kernel charges to the process,
including pages of the arrays, which it can drop and read again. The benchmark trains one epoch of the default recipe
with ``train.shuffle_window: 4096``, and the same epoch on a tenth of the images without a limit, to compare the speed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
SIZE = 64
IMAGE_BYTES = SIZE * SIZE * 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--limit", type=int, default=1024, help="MiB; PyTorch and its libraries take half of the default, 1024"
    )
    parser.add_argument(
        "--times", type=float, default=10, help="size of the arrays as a multiple of the limit (default: 10)"
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--train", nargs=3, help=argparse.SUPPRESS)  # run in a child process
    options = parser.parse_args()
    if options.train:
        path, count, group = options.train
        if group:
            (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
        print(json.dumps(train(Path(path), int(count))))
        return
    count = int(options.limit * 2**20 * options.times / IMAGE_BYTES)
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "images.npy"
        write_noise(path, count)
        free = run(path, count // 10, None)
        limited = run(path, count, options.limit)
    found = {"limit_mib": options.limit, "images": count, "arrays_mib": count * IMAGE_BYTES / 2**20}
    found |= {f"limited_{key}": value for key, value in limited.items()}
    found |= {f"unlimited_{key}": value for key, value in free.items()}
    for key, value in found.items():
        print(f"{key:30} {value:,.0f}" if isinstance(value, (int, float)) else f"{key:30} {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


def write_noise(path: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (count, SIZE, SIZE, 3)}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, count, 4096):
            file.write(rng.bytes(min(4096, count - start) * IMAGE_BYTES))


def run(path: Path, count: int, limit: int | None) -> dict[str, float]:
    group = ControlGroup(limit) if limit else None
    command = [sys.executable, __file__, "--train", str(path), str(count), str(group.folder) if group else ""]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"the training ended with status {process.returncode}")
    found: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    if group:
        found["peak_mib"] = group.peak() / 2**20
        group.remove()
    return found


class ControlGroup:
    """A Linux control group with a memory limit, version 2 or 1."""

    def __init__(self, limit: int) -> None:
        unified = Path("/sys/fs/cgroup/cgroup.controllers")
        is_second = unified.exists() and "memory" in unified.read_text().split()
        self.folder = Path("/sys/fs/cgroup" if is_second else "/sys/fs/cgroup/memory") / f"benchmark-{os.getpid()}"
        self._peak = "memory.peak" if is_second else "memory.max_usage_in_bytes"
        try:
            self.folder.mkdir()
            (self.folder / ("memory.max" if is_second else "memory.limit_in_bytes")).write_text(str(limit * 2**20))
        except OSError as error:
            raise SystemExit(f"cannot create a control group ({error}); run as root on Linux") from None

    def peak(self) -> int:
        return int((self.folder / self._peak).read_text())

    def remove(self) -> None:
        self.folder.rmdir()


def train(path: Path, count: int) -> dict[str, float]:
    import torch  # noqa: PLC0415 - its memory counts towards the limit

    from gender_classifier.common.processes import keep_freed_memory  # noqa: PLC0415
    from gender_classifier.data.dataset import PackedSplit  # noqa: PLC0415
    from gender_classifier.model.model_file import ModelSpec  # noqa: PLC0415
    from gender_classifier.model.network import build_model  # noqa: PLC0415
    from gender_classifier.pipeline.params import load_params  # noqa: PLC0415
    from gender_classifier.train.trainer import Trainer  # noqa: PLC0415

    keep_freed_memory()  # as the stage does
    images = np.load(path, mmap_mode="r")[:count]
    split = PackedSplit(images, np.arange(count, dtype=np.int64) % 2)
    val = PackedSplit(images[:512], split.labels[:512])
    params = replace(load_params(ROOT / "params.yaml").train, epochs=1, shuffle_window=4096)
    spec = ModelSpec("linear", ("female", "male"), SIZE, (0.5,) * 3, (0.3,) * 3)
    torch.manual_seed(0)
    trainer = Trainer(build_model("linear", 2, SIZE), spec, split, val, params)
    began = time.perf_counter()
    list(trainer.epochs())
    return {"images_per_second": count / (time.perf_counter() - began), "trained_images": count}


if __name__ == "__main__":
    main()

"""A training loop that ends with a budget, and prediction of a folder, for libraries whose wheels bring neither."""

import csv
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

WORKERS = 2
"""Processes that read images: the libraries' defaults (4 and 16) capped at the number of cores."""

# s of steps that measure the speed, after the first few, which warm up.
_PROBE, _WARM_UP = 6.0, 4
# Share of the remaining time that is planned: the speed varies.
_PLANNED = 0.97

Learn = Callable[[Tensor, Tensor, int], None]
"""Makes one step on images, float (N, 3, S, S), and labels, int64 (N,); the last argument counts steps from 0."""

Build = Callable[[int], tuple[nn.Module, Learn]]
"""Builds an untrained network, and its training with a schedule of that many steps."""


def fit(
    build: Build, train: DataLoader[Any], val: DataLoader[Any], deadline: float
) -> tuple[nn.Module, dict[str, Any]]:
    """Train until shortly before ``deadline`` (s since 1970) and validate once.

    A network that is thrown away measures the images/s, from which the number of steps follows. Steps beyond what the
    time allows are left out; ``steps`` below ``planned_steps`` shows that.
    """
    batches, size = _repeat(train), train.batch_size or 1
    speed = size / _measure_step(build, batches)
    reserve = 1 + len(val.dataset) / (2 * speed)  # type: ignore[arg-type]  # forward only takes a third of a step
    planned = max(1, int((deadline - time.time() - reserve) * _PLANNED * speed / size))
    model, learn = build(planned)
    model.train()
    began, steps, seen = time.time(), 0, 0
    while steps < planned and time.time() < deadline - reserve:
        images, labels = next(batches)
        learn(images, labels, steps)
        steps, seen = steps + 1, seen + len(images)
    seconds = time.time() - began
    accuracy = _validate(model, val)
    return model, {
        "parameters": sum(parameter.numel() for parameter in model.parameters()), "batch_size": size,
        "images": seen, "train_seconds": seconds, "steps": steps, "planned_steps": planned, "val_accuracy": accuracy,
        "epochs": seen / len(train.dataset),  # type: ignore[arg-type]
    }  # fmt: skip


def save(out: Path, model: nn.Module, report: dict[str, Any]) -> None:
    """Write the weights and what is to be reported."""
    torch.save(model.state_dict(), out / "model.pt")
    (out / "report.json").write_text(json.dumps(report))


def predict(model: nn.Module, out: Path, folder: Path, table: Path, transform: Callable[[Image.Image], Tensor]) -> None:
    """Write the name of each file in ``folder`` and its predicted class into a CSV file."""
    model.load_state_dict(torch.load(out / "model.pt", weights_only=True))
    model.eval()
    paths = sorted(folder.iterdir())
    loader = DataLoader(Files(paths, transform), batch_size=128, num_workers=WORKERS)
    with torch.inference_mode():
        found = torch.cat([model(images).argmax(dim=1) for images in loader])
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label"])
        writer.writerows((path.name, ("female", "male")[label]) for path, label in zip(paths, found, strict=True))


class Files(Dataset[Tensor]):
    """Images of a list of files."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        """Remember what to read, and how to turn an image into the network's input."""
        self._paths, self._transform = paths, transform

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._paths)

    def __getitem__(self, index: int) -> Tensor:
        """Read a file."""
        with Image.open(self._paths[index]) as image:
            return self._transform(image.convert("RGB"))


def _repeat(loader: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        yield from loader


def _measure_step(build: Build, batches: Iterator[tuple[Tensor, Tensor]]) -> float:
    model, learn = build(10_000)
    model.train()
    for step in range(_WARM_UP):
        learn(*next(batches), step)
    began, steps = time.time(), 0
    while time.time() - began < _PROBE:
        learn(*next(batches), _WARM_UP + steps)
        steps += 1
    return (time.time() - began) / steps


def _validate(model: nn.Module, loader: DataLoader[Any]) -> float:
    model.eval()
    with torch.inference_mode():
        hits = sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in loader)
    return hits / len(loader.dataset)  # type: ignore[arg-type]

"""fastai's learner, from scratch, by the baseline of chapter 7 of its book (Howard & Gugger 2020).

An XResNet (18 instead of 50 layers), 64 images per step, `fit_one_cycle` with a peak of 0.003; images resized to 128 px
(for 64, as 460 for 224), then `aug_transforms(size=64, min_scale=0.75)` on whole batches. fastai validates after each
epoch. The number of epochs is rounded up, and each takes a random part of the images, so that the cycle ends with the
budget.

    python with_fastai.py train IMAGES OUT DEADLINE
    python with_fastai.py predict OUT FOLDER CSV
"""

import csv
import json
import math
import sys
import time
from pathlib import Path

from fastai.callback.core import Callback, CancelFitException
from fastai.callback.schedule import fit_one_cycle  # noqa: F401 - adds the method
from fastai.data.transforms import Normalize
from fastai.learner import Learner, load_learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.torch_core import set_seed
from fastai.vision.augment import Resize, aug_transforms
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageDataLoaders
from fastai.vision.models.xresnet import xresnet18

SIZE, BATCH, LR = 64, 64, 3e-3
_PROBE, _WARM_UP, _PLANNED = 6.0, 4, 0.97  # as in loop.py


class Clock(Callback):
    """Measures the images and seconds of training after ``skipped`` batches; ends the fit after ``limit`` seconds."""

    def __init__(self, skipped: int = 0, limit: float = math.inf) -> None:
        """Start with nothing seen."""
        self.skipped, self.limit, self.images, self.seconds = skipped, limit, 0, 0.0

    def before_train(self) -> None:
        """Start the clock of an epoch."""
        self.before = time.time()

    def after_batch(self) -> None:
        """Count a batch."""
        if not self.training:
            return
        now, self.skipped = time.time(), self.skipped - 1
        if self.skipped < 0:
            self.images, self.seconds = self.images + len(self.y), self.seconds + now - self.before
        self.before = now
        if self.seconds > self.limit:
            raise CancelFitException


def build(images: Path) -> Learner:
    """Return an untrained learner on the folders ``train`` and ``val`` of ``images``."""
    loaders = ImageDataLoaders.from_folder(
        images, train="train", valid="val", bs=BATCH, item_tfms=Resize(2 * SIZE),
        batch_tfms=[*aug_transforms(size=SIZE, min_scale=0.75), Normalize.from_stats(*imagenet_stats)],
    )  # fmt: skip
    return Learner(loaders, xresnet18(n_out=2), loss_func=CrossEntropyLossFlat(), metrics=accuracy)


def train(images: Path, out: Path, deadline: float) -> None:
    """Train until the deadline, s since 1970."""
    set_seed(0)
    clock = Clock(_WARM_UP, _PROBE)
    learner = build(images)
    with learner.no_bar(), learner.no_logging():
        learner.fit(100, cbs=clock)
    speed = clock.images / clock.seconds
    learner, clock = build(images), Clock()
    total, validation = len(learner.dls.train_ds), 1 + len(learner.dls.valid_ds) / (2 * speed)
    seconds = (deadline - time.time() - 1) * _PLANNED
    epochs = max(1, math.ceil(seconds / (total / speed + validation)))
    part = min(total, max(BATCH, int((seconds / epochs - validation) * speed)))
    loader = learner.dls.train
    loader.n = part
    loader.shuffle_fn = lambda rows: loader.rng.sample(range(total), len(rows))
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(epochs, LR, cbs=clock)
    learner.remove_cb(Clock)
    learner.export(out.resolve() / "model.pkl")
    report = {
        "parameters": sum(parameter.numel() for parameter in learner.model.parameters()), "batch_size": BATCH,
        "images": clock.images, "train_seconds": clock.seconds, "val_accuracy": float(learner.recorder.values[-1][-1]),
        "epochs": clock.images / total,
    }  # fmt: skip
    (out / "report.json").write_text(json.dumps(report))


def predict(out: Path, folder: Path, table: Path) -> None:
    """Write the name of each file in ``folder`` and its predicted class into a CSV file."""
    learner = load_learner(out / "model.pkl")
    paths = sorted(folder.iterdir())
    with learner.no_bar(), learner.no_logging():
        probs, _ = learner.get_preds(dl=learner.dls.test_dl(paths))
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "label"])
        labels = [learner.dls.vocab[index] for index in probs.argmax(dim=1)]
        writer.writerows((path.name, label) for path, label in zip(paths, labels, strict=True))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        predict(*map(Path, sys.argv[2:]))

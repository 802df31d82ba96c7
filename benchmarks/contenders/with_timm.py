"""timm's ResNet-10-T by recipe A3 of its authors (Wightman et al., "ResNet strikes back", 2021, table 2), by its parts.

LAMB with weight decay 0.02, a rate of 0.008 for 2,048 images that is scaled with the square root of the batch as timm's
train.py does, a warm-up over 5 of 100 epochs and a cosine; binary cross-entropy; mixup 0.1 and CutMix 1; random crops,
flips, RandAugment of magnitude 6; evaluated on the middle 95 %. 128 images per step, train.py's default; 64 px.

    python with_timm.py train IMAGES OUT DEADLINE
    python with_timm.py predict OUT FOLDER CSV
"""

import sys
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from loop import WORKERS, Learn, fit, predict, save
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, Mixup, create_dataset, create_transform
from timm.loss import BinaryCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader

NETWORK, SIZE, BATCH = "resnet10t", 64, 128
_COMMON = {"mean": IMAGENET_DEFAULT_MEAN, "std": IMAGENET_DEFAULT_STD, "interpolation": "bicubic"}


def build(steps: int) -> tuple[nn.Module, Learn]:
    """Build the network and its training."""
    model = timm.create_model(NETWORK, num_classes=2)
    optimizer = create_optimizer_v2(model, "lamb", lr=0.008 * (BATCH / 2048) ** 0.5, weight_decay=0.02)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=1, warmup_epochs=0.05, warmup_lr=1e-6, min_lr=1e-6, updates_per_epoch=steps,
        step_on_epochs=False,
    )  # fmt: skip
    mix = Mixup(mixup_alpha=0.1, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=2)
    compute_loss = BinaryCrossEntropy(smoothing=0.0)

    def learn(images: Tensor, labels: Tensor, step: int) -> None:
        schedule.step_update(step)
        images, targets = mix(images, labels)
        loss = compute_loss(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return model, learn


def build_transform(*, training: bool) -> Callable[[Image.Image], Tensor]:
    """Return the recipe's transform of an image."""
    recipe = {"auto_augment": "rand-m6-mstd0.5-inc1", "color_jitter": None} if training else {"crop_pct": 0.95}
    return create_transform(SIZE, is_training=training, **_COMMON, **recipe)


def train(images: Path, out: Path, deadline: float) -> None:
    """Train on the folders ``train`` and ``val`` of ``images``."""
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    torch.manual_seed(0)
    sets = {}
    for name in ("train", "val"):
        sets[name] = create_dataset("", images / name)
        sets[name].transform = build_transform(training=name == "train")
    learning = DataLoader(sets["train"], shuffle=True, drop_last=True, **options)
    save(out, *fit(build, learning, DataLoader(sets["val"], **options), deadline))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        predict(timm.create_model(NETWORK, num_classes=2), *map(Path, sys.argv[2:]), build_transform(training=False))

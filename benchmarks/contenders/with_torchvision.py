"""torchvision's ResNet-18 by the defaults of its training script (`references/classification`, not in the wheel).

SGD with momentum 0.9 and weight decay 0.0001, 32 images per step, a rate of 0.1 for 256 images that falls to a tenth
after each third of the steps (30 of 90 epochs); random crops of 8 to 100 % of the area and flips; evaluated on the
centre, 224 of 256. Sizes are scaled to 64 px, the rate to 32 images.

    python with_torchvision.py train IMAGES OUT DEADLINE
    python with_torchvision.py predict OUT FOLDER CSV
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from loop import WORKERS, Learn, fit, predict, save
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

SIZE, BATCH = 64, 32
_NORMALIZED = [
    v2.PILToTensor(),
    v2.ToDtype(torch.float32, scale=True),
    v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
]
TRAIN = v2.Compose([v2.RandomResizedCrop(SIZE, antialias=True), v2.RandomHorizontalFlip(), *_NORMALIZED])
EVAL = v2.Compose([v2.Resize(round(SIZE * 256 / 224), antialias=True), v2.CenterCrop(SIZE), *_NORMALIZED])


def build(steps: int) -> tuple[nn.Module, Learn]:
    """Build the network and its training."""
    model = models.resnet18(num_classes=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * BATCH / 256, momentum=0.9, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, step_size=max(1, -(-steps // 3)), gamma=0.1)

    def learn(images: Tensor, labels: Tensor, _: int) -> None:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()

    return model, learn


def train(images: Path, out: Path, deadline: float) -> None:
    """Train on the folders ``train`` and ``val`` of ``images``."""
    options = {"batch_size": BATCH, "num_workers": WORKERS, "persistent_workers": True}
    torch.manual_seed(0)
    learning = DataLoader(ImageFolder(images / "train", TRAIN), shuffle=True, drop_last=True, **options)
    judging = DataLoader(ImageFolder(images / "val", EVAL), **options)
    save(out, *fit(build, learning, judging, deadline))


if __name__ == "__main__":
    if sys.argv[1] == "train":
        train(Path(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4]))
    else:
        predict(models.resnet18(num_classes=2), *map(Path, sys.argv[2:]), EVAL)

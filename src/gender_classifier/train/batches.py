"""Batches of a split on the training device, the order of an epoch, class weights and mixup."""

import numpy as np
import torch
import torch.utils.deterministic
from numpy.typing import NDArray
from torch import Tensor

from gender_classifier.data.dataset import PackedSplit

_BLOCK = 64  # rows that are read together: 768 KiB of images of 64 px


class DeviceSplit:
    """A split on its way to the device: at once where an accelerator has room for it, else a batch at a time."""

    def __init__(self, split: PackedSplit, device: torch.device, chosen: NDArray[np.int64] | None = None) -> None:
        """Take ``split``, or only its ``chosen`` rows, which are then numbered from 0."""
        self._chosen = chosen
        self.labels: NDArray[np.int64] = np.asarray(split.labels if chosen is None else split.labels[chosen])
        self.images: NDArray[np.uint8] | Tensor = split.images
        self._device = device
        self._targets = torch.tensor(self.labels)
        if _has_room(device, split.images.nbytes):
            self.images = torch.tensor(split.images, device=device)
            self._targets = self._targets.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return uint8 (n, S, S, 3) and int64 (n,) on the device."""
        places = rows if self._chosen is None else self._chosen[rows]
        index = torch.from_numpy(rows)
        if isinstance(self.images, Tensor):
            index = index.to(self.images.device, non_blocking=True)
            place = torch.from_numpy(places).to(self.images.device, non_blocking=True)
            return self.images[place], self._targets[index]
        images = torch.from_numpy(np.asarray(self.images[places])).to(self._device)
        return images, self._targets[index].to(self._device)


def _has_room(device: torch.device, size: int) -> bool:
    """Whether ``size`` bytes may stay on an NVIDIA device: half of what is free is left to the training."""
    return device.type == "cuda" and size < torch.cuda.mem_get_info(device)[0] / 2


def shuffle(count: int, window: int, generator: torch.Generator) -> NDArray[np.int64]:
    """Return a random order of ``count`` rows, int64.

    With a ``window``, blocks of 64 consecutive rows are shuffled, then the rows within each ``window`` of them: who
    reads in this order from a file touches no more than a window of it at a time. Rows of one block then never lie
    further apart than a window; one window holds blocks from all over the file.

    Args:
        count: rows.
        window: rows, or 0 to shuffle all at once.
        generator: a CPU generator.
    """
    if not 0 < window < count:
        return torch.randperm(count, generator=generator).numpy()
    blocks = torch.randperm(-(-count // _BLOCK), generator=generator)
    rows = (blocks[:, None] * _BLOCK + torch.arange(_BLOCK)).flatten()
    rows = rows[rows < count]
    return torch.cat(
        [part[torch.randperm(len(part), generator=generator)] for part in torch.split(rows, window)]
    ).numpy()


def draw_mixup_lambda(alpha: float, generator: torch.Generator) -> float:
    """Return the share that an image keeps when two are mixed, at least a half: of Beta(alpha, alpha); 1 for alpha 0.

    The mixup of Zhang et al. (2018), one share a batch.
    """
    if not alpha:
        return 1.0
    draw = np.random.default_rng(int(torch.randint(2**62, (), generator=generator))).beta(alpha, alpha)
    return float(max(draw, 1 - draw))


def mix_neighbours(images: Tensor, share: float) -> Tensor:
    """Mix each image with its neighbour, in place; the batch comes shuffled, so that any two are a random pair."""
    if share < 1:
        pairs = images[: len(images) // 2 * 2].view(-1, 2, *images.shape[1:])
        pairs.lerp_(pairs.flip(1), 1 - share)
    return images


def find_neighbours(count: int) -> Tensor:
    """Return each row's partner: 0 and 1, 2 and 3, ...; a last one without stays alone."""
    return (torch.arange(count) ^ 1).clamp_(max=count - 1)


def weigh_classes(labels: NDArray[np.int64]) -> Tensor:
    """Return float (C,): 1 on average over the images, and of equal sum for each class."""
    counts = np.bincount(labels)
    return torch.from_numpy(len(labels) / (len(counts) * np.maximum(counts, 1))).float()

"""Image loading of the notebook that this project replaces, reimplemented from its description."""

import io
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torchvision import transforms

from gender_classifier.data.archive import Archive


def build_decoder(archive: Archive, size: int) -> Callable[[Sequence[str]], torch.Tensor]:
    """Return a function that decodes archive members, one by one, into a batch: float32 (N, 3, size, size) in [0, 1].

    The notebook read files from a folder; reading them from the archive takes no longer.
    """
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])

    def decode(members: Sequence[str]) -> torch.Tensor:
        images = (Image.open(io.BytesIO(archive.read(member))).convert("RGB") for member in members)
        return torch.stack([transform(image) for image in images])

    return decode

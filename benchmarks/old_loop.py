"""How the notebook that this project replaces gets its images: written anew from its description."""

import io
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torchvision import transforms

from gender_classifier.data.archive import Archive


def build_decoder(archive: Archive, size: int) -> Callable[[Sequence[str]], torch.Tensor]:
    """Return what turns names of members into a batch, float32 (N, 3, size, size) in [0, 1], one image at a time.

    The notebook read files from a folder; reading them from the archive costs no more than that.
    """
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])

    def decode(members: Sequence[str]) -> torch.Tensor:
        pictures = (Image.open(io.BytesIO(archive.read(member))).convert("RGB") for member in members)
        return torch.stack([transform(picture) for picture in pictures])

    return decode

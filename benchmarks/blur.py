"""Measures of blur: how well each tells blurred faces from the originals, and whether it takes pale ones for blurred.

    python benchmarks/blur.py faces-12k.zip        5 s of CPU time

`sharpness` is what `verify` flags by. The others: the standard deviation of the Laplacian alone, and that of the edges
of the image at 64 px, as cleanvision measures it.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from sklearn.metrics import roc_auc_score

from gender_classifier.data.archive import Archive
from gender_classifier.data.images import decode, shrink_grey
from gender_classifier.verify.quality import measure_quality


def measure_edges(grey: Image.Image) -> float:
    ratio = max(max(grey.size) / 64, 1)
    small = grey.resize((int(grey.width / ratio), int(grey.height / ratio)), Image.Resampling.BICUBIC)
    return float(np.asarray(small.filter(ImageFilter.FIND_EDGES)).std())


def measure_laplacian(grey: Image.Image) -> float:
    pixels = shrink_grey(grey)
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    return float((4 * pixels[1:-1, 1:-1] - around).std())


def measure_sharpness(grey: Image.Image) -> float:
    return measure_quality(grey, shrink_grey(grey)).sharpness


MEASURES = {"edges": measure_edges, "laplacian": measure_laplacian, "sharpness": measure_sharpness}
SIGMAS = (1, 1.5, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--images", type=int, default=750)
    options = parser.parse_args()
    with Archive(options.archive) as archive:
        step = max(len(archive.members) // options.images, 1)
        chosen = archive.members[::step][: options.images]
        faces = [decode(archive.read(name), max_pixels=10**8).convert("L") for name in chosen]
    print(f"{len(faces)} images; area under the ROC curve by sigma of the blur; pale images below the 1 % quantile")
    print(f"{'':10}", *(f"{f'{sigma} px':>7}" for sigma in SIGMAS), f"{'pale':>7}")
    for name, measure in MEASURES.items():
        sharp = apply(measure, faces)
        areas = []
        for sigma in SIGMAS:
            blurred = apply(measure, [face.filter(ImageFilter.GaussianBlur(sigma)) for face in faces])
            areas.append(roc_auc_score(np.repeat([1, 0], len(faces)), np.concatenate([sharp, blurred])))
        pale = apply(measure, [face.point(lambda level: 64 + level // 2) for face in faces])
        share = (pale < np.quantile(sharp, 0.01)).mean()
        print(f"{name:10}", *(f"{area:7.4f}" for area in areas), f"{share:7.1%}")


def apply(measure: Callable[[Image.Image], float], images: list[Image.Image]) -> np.ndarray:
    return np.array([measure(image) for image in images])


if __name__ == "__main__":
    main()

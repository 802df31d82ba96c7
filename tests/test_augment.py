"""Augmentation: off is the identity, each variation does what it says, one generator decides."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gender_classifier.augment import augment, random_affine, random_grey, random_light
from gender_classifier.params import AugmentParams, load_params

DEFAULT = load_params(Path(__file__).parents[1] / "params.yaml").train.augment
OFF = AugmentParams(flip=0, rotate=0, scale=0, translate=0, brightness=0, contrast=0, grey=0)
IMAGES = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_everything_off_is_the_identity() -> None:
    assert torch.equal(augment(IMAGES, OFF, generator()), IMAGES)


def test_the_seed_decides_and_torchs_own_generator_is_left_alone() -> None:
    state = torch.get_rng_state()
    first, again, other = (augment(IMAGES, DEFAULT, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == IMAGES.shape
    assert torch.isfinite(first).all()


def test_every_image_has_its_own_draw() -> None:
    same = IMAGES[:1].repeat(8, 1, 1, 1)
    varied = augment(same, DEFAULT, generator())
    assert all(not torch.equal(varied[0], image) for image in varied[1:])


def test_a_certain_flip_mirrors_left_and_right() -> None:
    flipped = random_affine(IMAGES, replace(OFF, flip=1), generator())
    torch.testing.assert_close(flipped, IMAGES.flip(3), atol=1e-4, rtol=0)


def spot(x: int, y: int) -> torch.Tensor:
    image = torch.zeros(1, 3, 65, 65)
    image[:, :, y - 1 : y + 2, x - 1 : x + 2] = 1
    return image


def centre(image: torch.Tensor) -> tuple[float, float]:
    weight = image[0, 0] / image[0, 0].sum()
    places = torch.arange(65.0)
    return float((weight.sum(0) * places).sum()), float((weight.sum(1) * places).sum())


@pytest.mark.parametrize("seed", range(5))
def test_rotation_keeps_the_distance_from_the_centre_and_stays_within_its_angle(seed: int) -> None:
    x, y = centre(random_affine(spot(52, 32), replace(OFF, rotate=20), generator(seed)))
    offset = torch.tensor([x - 32, y - 32])
    assert abs(float(offset.norm()) - 20) < 0.5
    assert abs(float(torch.atan2(offset[1], offset[0]).rad2deg())) <= 20.5


@pytest.mark.parametrize("seed", range(5))
def test_scale_and_translation_stay_within_their_fractions(seed: int) -> None:
    x, _ = centre(random_affine(spot(52, 32), replace(OFF, scale=0.2), generator(seed)))
    assert 20 * 0.79 <= x - 32 <= 20 * 1.21
    x, y = centre(random_affine(spot(32, 32), replace(OFF, translate=0.1), generator(seed)))
    assert max(abs(x - 32), abs(y - 32)) <= 6.6


def test_brightness_scales_and_contrast_keeps_the_mean() -> None:
    ratio = random_light(IMAGES, 0.3, 0, generator()) / IMAGES.clamp_min(1e-6)
    per_image = ratio.flatten(1)
    assert (per_image.std(dim=1) < 1e-3).all()
    assert (per_image.mean(dim=1).sub(1).abs() <= 0.301).all()
    varied = random_light(IMAGES, 0, 0.3, generator())
    torch.testing.assert_close(varied.mean((1, 2, 3)), IMAGES.mean((1, 2, 3)), atol=1e-4, rtol=0)
    spread = varied.std((1, 2, 3)) / IMAGES.std((1, 2, 3))
    assert (spread.sub(1).abs() <= 0.301).all()
    assert spread.std() > 0.01


def test_a_certain_grey_has_equal_channels_of_the_luma() -> None:
    grey = random_grey(IMAGES, 1, generator())
    luma = 0.299 * IMAGES[:, 0] + 0.587 * IMAGES[:, 1] + 0.114 * IMAGES[:, 2]
    for channel in range(3):
        torch.testing.assert_close(grey[:, channel], luma)
    some = random_grey(IMAGES.repeat(20, 1, 1, 1), 0.25, generator())
    share = (some[:, 0] == some[:, 1]).all(-1).all(-1).float().mean()
    assert 0.1 < share < 0.4

"""Augmentation: off is the identity, each variation does what it says, one generator decides."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import draw_pixels, encode
from PIL import Image
from scipy.ndimage import gaussian_filter

from gender_classifier.pipeline.params import load_params
from gender_classifier.train.augment import _affine_grid, apply_variations, draw_variations
from gender_classifier.train.params import AugmentParams

DEFAULT = load_params(Path(__file__).parents[2] / "params.yaml").train.augment
OFF = AugmentParams(
    flip=0,
    rotate=0,
    scale=0,
    translate=0,
    translate_height=0,
    brightness=0,
    contrast=0,
    grey=0,
    blur=0,
    jpeg=0,
    stretch=0,
    erase=0,
)
IMAGES = torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(images: torch.Tensor, params: AugmentParams, generator: torch.Generator) -> torch.Tensor:
    return apply_variations(images, draw_variations(len(images), params, generator))


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


@pytest.mark.parametrize("params", [DEFAULT, OFF, replace(OFF, brightness=0.2)], ids=["all", "none", "light alone"])
def test_the_images_given_stay_as_they_were(params: AugmentParams) -> None:
    images = IMAGES.clone()
    varied = augment(images, params, generator())
    assert torch.equal(images, IMAGES)
    assert varied.data_ptr() != images.data_ptr()


@pytest.mark.parametrize("size", [(5, 7), (64, 64), (1, 3)])
def test_the_sampling_grid_is_torchs(size: tuple[int, int]) -> None:
    theta = torch.randn(4, 2, 3, generator=generator())
    torch.testing.assert_close(_affine_grid(theta, size), F.affine_grid(theta, [4, 3, *size], align_corners=False))


def test_every_image_has_its_own_draw() -> None:
    same = IMAGES[:1].repeat(8, 1, 1, 1)
    varied = augment(same, DEFAULT, generator())
    assert all(not torch.equal(varied[0], image) for image in varied[1:])


def test_a_certain_flip_mirrors_left_and_right() -> None:
    flipped = augment(IMAGES, replace(OFF, flip=1), generator())
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
    x, y = centre(augment(spot(52, 32), replace(OFF, rotate=20), generator(seed)))
    offset = torch.tensor([x - 32, y - 32])
    assert abs(float(offset.norm()) - 20) < 0.5
    assert abs(float(torch.atan2(offset[1], offset[0]).rad2deg())) <= 20.5


@pytest.mark.parametrize("seed", range(5))
def test_scale_and_translation_stay_within_their_fractions(seed: int) -> None:
    x, _ = centre(augment(spot(52, 32), replace(OFF, scale=0.2), generator(seed)))
    assert 20 * 0.79 <= x - 32 <= 20 * 1.21
    x, y = centre(augment(spot(32, 32), replace(OFF, translate=0.05, translate_height=0.1), generator(seed)))
    assert abs(x - 32) <= 3.4
    assert abs(y - 32) <= 6.6


def test_width_and_height_are_shifted_each_by_its_own_fraction() -> None:
    shift = draw_variations(1000, replace(OFF, translate=0.05, translate_height=0.1), generator()).shift.abs()
    assert shift.amax(dim=0).tolist() == pytest.approx([0.05, 0.1], rel=0.02)
    across, down = (replace(OFF, **{key: 0.2}) for key in ("translate", "translate_height"))
    assert draw_variations(9, across, generator()).shift[:, 1].abs().max() == 0
    assert draw_variations(9, down, generator()).shift[:, 0].abs().max() == 0


def test_brightness_scales_and_contrast_keeps_the_mean() -> None:
    ratio = augment(IMAGES, replace(OFF, brightness=0.3), generator()) / IMAGES.clamp_min(1e-6)
    per_image = ratio.flatten(1)
    assert (per_image.std(dim=1) < 1e-3).all()
    assert (per_image.mean(dim=1).sub(1).abs() <= 0.301).all()
    varied = augment(IMAGES, replace(OFF, contrast=0.3), generator())
    torch.testing.assert_close(varied.mean((1, 2, 3)), IMAGES.mean((1, 2, 3)), atol=1e-4, rtol=0)
    spread = varied.std((1, 2, 3)) / IMAGES.std((1, 2, 3))
    assert (spread.sub(1).abs() <= 0.301).all()
    assert spread.std() > 0.01


def test_a_certain_grey_has_equal_channels_of_the_luma() -> None:
    grey = augment(IMAGES, replace(OFF, grey=1), generator())
    luma = 0.299 * IMAGES[:, 0] + 0.587 * IMAGES[:, 1] + 0.114 * IMAGES[:, 2]
    for channel in range(3):
        torch.testing.assert_close(grey[:, channel], luma)
    some = augment(IMAGES.repeat(20, 1, 1, 1), replace(OFF, grey=0.25), generator())
    share = (some[:, 0] == some[:, 1]).all(-1).all(-1).float().mean()
    assert 0.1 < share < 0.4


def photograph(seed: int = 0, size: int = 64) -> torch.Tensor:
    return torch.tensor(draw_pixels(seed, size, size)).permute(2, 0, 1)[None].float() / 255


def test_a_certain_blur_is_a_gaussian_and_keeps_flat_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gender_classifier.train.augment._BLUR_SIGMA", (1.2, 1.2))
    image = photograph()
    blurred = augment(image, replace(OFF, blur=1), generator())
    expected = gaussian_filter(image.numpy(), sigma=(0, 0, 1.2, 1.2), truncate=8)
    np.testing.assert_allclose(blurred.numpy()[..., 8:-8, 8:-8], expected[..., 8:-8, 8:-8], atol=1e-4)
    flat = torch.full((2, 3, 64, 64), 0.3)
    torch.testing.assert_close(augment(flat, replace(OFF, blur=1), generator()), flat)


@pytest.mark.parametrize("quality", [20, 50, 75])
def test_a_certain_jpeg_is_what_pillow_makes_of_it(quality: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gender_classifier.train.augment._JPEG_QUALITY", (quality, quality))
    pixels = draw_pixels(1, 64, 64)
    with Image.open(io.BytesIO(encode(pixels, quality=quality, subsampling=0))) as picture:
        expected = np.asarray(picture, np.float32)
    found = augment(photograph(1), replace(OFF, jpeg=1), generator())[0].permute(1, 2, 0).numpy() * 255
    lost = np.abs(expected - pixels).mean()
    assert np.abs(found - expected).mean() < 0.35 * lost


def test_a_side_that_is_no_multiple_of_eight_stays_as_it_is() -> None:
    assert augment(photograph(2, 67), replace(OFF, jpeg=1), generator()).shape == (1, 3, 67, 67)


@pytest.mark.parametrize("name", ["blur", "jpeg"])
def test_the_share_of_images_is_the_probability(name: str) -> None:
    many = photograph().repeat(200, 1, 1, 1)
    changed = (augment(many, replace(OFF, **{name: 0.25}), generator()) != many).flatten(1).any(1).float().mean()
    assert 0.15 < changed < 0.35
    assert torch.equal(augment(many, replace(OFF, **{name: 1e-9}), generator()), many)


def test_parts_of_a_batch_are_varied_as_the_whole_is() -> None:
    variations = draw_variations(len(IMAGES), replace(DEFAULT, blur=0.5, jpeg=0.5, grey=0.5), generator())
    whole = apply_variations(IMAGES, variations)
    parts = [apply_variations(IMAGES[rows], variations.part(rows)) for rows in (slice(0, 3), slice(3, 8))]
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-6, rtol=0)
    assert len(apply_variations(IMAGES[:0], variations.part(slice(0, 0)))) == 0

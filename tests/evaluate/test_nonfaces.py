"""Images without a face are the same every time, differ from one another, and have any size."""

import numpy as np
import pytest

from gender_classifier.data.dataset import PackedSplit
from gender_classifier.evaluate.unfamiliar.nonfaces import KINDS, draw_nonfaces
from gender_classifier.evaluate.unfamiliar.shares import (
    Scorer,
    count_unfamiliar,
    describe_unfamiliar,
    measure_unfamiliar,
)


@pytest.mark.parametrize("size", [32, 64])
def test_each_kind_has_different_images_that_are_always_the_same(size: int) -> None:
    drawn, again = draw_nonfaces(size, 32), draw_nonfaces(size, 32)
    assert list(drawn) == list(KINDS)
    for name, images in drawn.items():
        assert (images.shape, images.dtype) == ((32, size, size, 3), np.uint8)
        np.testing.assert_array_equal(images, again[name])
        assert len(np.unique(images.reshape(32, -1), axis=0)) == 32, name
    flat = {name for name, images in drawn.items() if (images == images[:, :1, :1]).all()}
    assert flat == {"plain colours"}


def test_shares_are_counted_by_set() -> None:
    def score(images: np.ndarray) -> np.ndarray:
        return images[:, 0, 0, 0].astype(np.float32)

    split = PackedSplit(
        np.arange(8, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 32, 3), np.uint8), np.zeros(8)
    )
    found = measure_unfamiliar(Scorer(score, 5.0), split, split)
    assert (found.rows[0].set, found.rows[0].n, found.rows[0].share) == ("test", 8, 0.25)
    assert [row.set for row in found.rows[1:]] == [f"no faces: {name}" for name in KINDS]
    assert found.metrics["unfamiliar_share"] == 0.25
    expected = np.mean([(score(images) > 5).mean() for images in draw_nonfaces(32).values()])
    assert found.metrics["nonfaces_unfamiliar_share"] == pytest.approx(expected)
    assert describe_unfamiliar([]) == ""
    assert "foreign       4       50.0%" in describe_unfamiliar(
        [count_unfamiliar("foreign", np.array([True, False] * 2))]
    )

"""What arrives while the model runs is its next batch; everybody gets their own answer."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from gender_classifier.serve.batching import Batcher


def image(value: int, count: int = 1) -> NDArray[np.uint8]:
    return np.full((count, 2, 2, 3), value, np.uint8)


class Model:
    """Says each image's value; waits for ``go`` first, and fails on 255."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.go = threading.Event()
        self.began = threading.Event()

    def compute(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(images))
        self.began.set()
        assert self.go.wait(10)
        values = images[:, 0, 0, :2].astype(np.float32)
        if (values == 255).any():
            raise ValueError("no such image")
        return values


async def hold(model: Model, batcher: Batcher) -> asyncio.Task[NDArray[np.float32]]:
    """Start a computation, and return when the model is busy with it."""
    first = asyncio.create_task(batcher.compute(image(1)))
    while not model.began.is_set():
        await asyncio.sleep(0.001)
    return first


def run(scenario: Callable[[Model, Batcher], Coroutine[object, object, None]], max_batch: int = 8) -> list[int]:
    model, seen = Model(), []
    with ThreadPoolExecutor(1) as executor:
        asyncio.run(scenario(model, Batcher(model.compute, executor, max_batch=max_batch, observe=seen.append)))
    assert seen == model.sizes
    return seen


def test_alone_it_starts_at_once() -> None:
    async def scenario(model: Model, batcher: Batcher) -> None:
        model.go.set()
        for value in (3, 4):
            assert (await batcher.compute(image(value)))[0, 0] == value

    assert run(scenario) == [1, 1]


def test_those_who_come_meanwhile_go_together_up_to_the_limit() -> None:
    async def scenario(model: Model, batcher: Batcher) -> None:
        first = await hold(model, batcher)
        others = [asyncio.create_task(batcher.compute(image(value, value % 3 + 1))) for value in range(10, 19)]
        await asyncio.sleep(0)
        model.go.set()
        assert (await first)[0, 0] == 1
        for value, found in zip(range(10, 19), await asyncio.gather(*others), strict=True):
            assert found.shape == (value % 3 + 1, 2)
            assert (found == value).all()

    assert run(scenario) == [1, 8, 6, 4]  # of 2 3 1 2 3 1 2 3 1


def test_more_than_the_limit_at_once_is_one_batch() -> None:
    async def scenario(model: Model, batcher: Batcher) -> None:
        model.go.set()
        assert (await batcher.compute(image(9, 20))).shape == (20, 2)

    assert run(scenario) == [20]


def test_an_error_reaches_those_it_concerns_and_the_next_go_on() -> None:
    async def scenario(model: Model, batcher: Batcher) -> None:
        first = await hold(model, batcher)
        bad = asyncio.create_task(batcher.compute(image(255)))
        await asyncio.sleep(0)
        model.go.set()
        assert (await first)[0, 0] == 1
        with pytest.raises(ValueError, match="no such image"):
            await bad
        assert (await batcher.compute(image(6)))[0, 0] == 6

    assert run(scenario) == [1, 1, 1]


def test_who_has_gone_costs_nothing() -> None:
    async def scenario(model: Model, batcher: Batcher) -> None:
        first = await hold(model, batcher)
        gone = asyncio.create_task(batcher.compute(image(5)))
        stays = asyncio.create_task(batcher.compute(image(6)))
        await asyncio.sleep(0)
        gone.cancel()
        first.cancel()
        await asyncio.sleep(0)
        model.go.set()
        assert (await stays)[0, 0] == 6

    assert run(scenario) == [1, 1]

"""Predictions of many requests computed together: what arrives while the model runs is its next batch."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Batcher:
    """A queue in front of ``compute``; for the coroutines of one event loop.

    Nobody waits for company: an idle model starts at once, with what there is. Batches form by themselves when requests
    come faster than the model answers.
    """

    def __init__(
        self,
        compute: Compute,
        executor: Executor,
        *,
        max_batch: int,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Run ``compute`` in ``executor``, on at most ``max_batch`` images unless one submission has more.

        Args:
            compute: uint8 (N, S, S, 3) to float32 (N, C).
            executor: of one thread, so that calls do not compete for the cores.
            max_batch: images a call.
            observe: is told the number of images of each call.
        """
        self._compute, self._executor, self._max_batch, self._observe = compute, executor, max_batch, observe
        self._waiting: deque[tuple[NDArray[np.uint8], asyncio.Future[NDArray[np.float32]]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def compute(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities of uint8 (N, S, S, 3) as float32 (N, C)."""
        future: asyncio.Future[NDArray[np.float32]] = asyncio.get_running_loop().create_future()
        self._waiting.append((images, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                images, futures = self._take()
                if not futures:
                    continue
                self._observe(sum(map(len, images)))
                batch = images[0] if len(images) == 1 else np.concatenate(images)
                try:
                    probs = await loop.run_in_executor(self._executor, self._compute, batch)
                except Exception as error:
                    for future in futures:
                        if not future.done():
                            future.set_exception(error)
                    continue
                ends = np.cumsum([len(one) for one in images])
                for future, part in zip(futures, np.split(probs, ends[:-1]), strict=True):
                    if not future.done():  # its client has gone
                        future.set_result(part)
        finally:
            self._runner = None

    def _take(self) -> tuple[list[NDArray[np.uint8]], list[asyncio.Future[NDArray[np.float32]]]]:
        images: list[NDArray[np.uint8]] = []
        futures: list[asyncio.Future[NDArray[np.float32]]] = []
        count = 0
        while self._waiting and (not images or count + len(self._waiting[0][0]) <= self._max_batch):
            one, future = self._waiting.popleft()
            if not future.done():
                images.append(one)
                futures.append(future)
                count += len(one)
        return images, futures

"""Dynamic batching: requests that arrive while the model runs form its next batch."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

Compute = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class Batcher:
    """A queue in front of a model, for the coroutines of one event loop.

    An idle model starts at once with what there is; nothing waits for a batch to fill.
    """

    def __init__(
        self,
        compute: Compute,
        executor: Executor,
        *,
        max_batch: int,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Create an empty queue.

        Args:
            compute: uint8 (N, S, S, 3) to float32 (N, C).
            executor: runs ``compute``; one thread, so that calls do not compete for the cores.
            max_batch: images per call, unless a single submission has more.
            observe: called with the number of images of each call.
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
                batch = self._take()
                if not batch:
                    continue
                images = np.concatenate([part for part, _ in batch])
                self._observe(len(images))
                try:
                    probs = await loop.run_in_executor(self._executor, self._compute, images)
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                ends = np.cumsum([len(part) for part, _ in batch])
                for (_, future), result in zip(batch, np.split(probs, ends[:-1]), strict=True):
                    if not future.done():  # cancelled: the client has gone
                        future.set_result(result)
        finally:
            self._runner = None

    def _take(self) -> list[tuple[NDArray[np.uint8], asyncio.Future[NDArray[np.float32]]]]:
        """Remove the next batch from the queue, without cancelled submissions."""
        batch: list[tuple[NDArray[np.uint8], asyncio.Future[NDArray[np.float32]]]] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0][0]) <= self._max_batch):
            images, future = self._waiting.popleft()
            if not future.done():
                batch.append((images, future))
                count += len(images)
        return batch

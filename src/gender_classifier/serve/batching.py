"""Dynamic batching: requests that arrive while the model runs form its next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Batcher(Generic[T]):
    """A queue in front of a model, for the coroutines of one event loop.

    An idle model starts at once with what there is; nothing waits for a batch to fill.
    """

    def __init__(
        self,
        compute: Callable[[NDArray[np.uint8]], Sequence[T]],
        executor: Executor,
        *,
        max_batch: int,
        observe: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Create an empty queue.

        Args:
            compute: uint8 (N, S, S, 3) to N answers.
            executor: runs ``compute``; one thread, so that calls do not compete for the cores.
            max_batch: images per call, unless a single submission has more.
            observe: called with the number of images of each call.
        """
        self._compute, self._executor, self._max_batch, self._observe = compute, executor, max_batch, observe
        self._waiting: deque[tuple[NDArray[np.uint8], asyncio.Future[Sequence[T]]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def compute(self, images: NDArray[np.uint8]) -> Sequence[T]:
        """Return the answers of uint8 (N, S, S, 3)."""
        future: asyncio.Future[Sequence[T]] = asyncio.get_running_loop().create_future()
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
                    answers = await loop.run_in_executor(self._executor, self._compute, images)
                except Exception as error:
                    for _, future in batch:
                        if not future.done():
                            future.set_exception(error)
                    continue
                start = 0
                for part, future in batch:
                    if not future.done():  # cancelled: the client has gone
                        future.set_result(answers[start : start + len(part)])
                    start += len(part)
        finally:
            self._runner = None

    def _take(self) -> list[tuple[NDArray[np.uint8], asyncio.Future[Sequence[T]]]]:
        """Remove the next batch from the queue, without cancelled submissions."""
        batch: list[tuple[NDArray[np.uint8], asyncio.Future[Sequence[T]]]] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0][0]) <= self._max_batch):
            images, future = self._waiting.popleft()
            if not future.done():
                batch.append((images, future))
                count += len(images)
        return batch

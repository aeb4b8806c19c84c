"""Questions that arrive one by one are answered in batches: those that wait, whatever their tasks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from weft.eval.errors import EvalError


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        task: Name of the task.
        text: The text.
        images: Encoded pictures, in their order.
    """

    task: str
    text: str
    images: tuple[bytes, ...] = ()


Answer = Callable[[Sequence[Question]], Sequence[str]]


class BusyError(EvalError, RuntimeError):
    """The queue is full."""


class Batching:
    """Hands questions to a model in batches, one batch at a time, in its own thread.

    After a batch that failed, its questions are asked one by one, so that one bad question fails alone.

    Args:
        answer: Answers questions of any mixture of tasks.
        size: Maximum number of questions in a batch.
        wait: Seconds to wait for a batch to fill.
        waiting: Maximum number of questions in the queue.
    """

    def __init__(self, answer: Answer, *, size: int, wait: float, waiting: int) -> None:
        self._answer, self._size, self._wait = answer, size, wait
        self._queue: asyncio.Queue[tuple[Question, asyncio.Future[str]]] = asyncio.Queue(waiting)
        self._thread = ThreadPoolExecutor(1, "weft-serve")
        self._task: asyncio.Task[None] | None = None
        self.batches: list[int] = []
        """Sizes of the last batches."""

    async def ask(self, question: Question) -> str:
        """The answer to a question; or what the model raised.

        Raises:
            BusyError: If the queue is full.
        """
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((question, future))
        except asyncio.QueueFull:
            raise BusyError(
                f"At most {self._queue.maxsize} questions may wait, and as many do. Ask again in a second."
            ) from None
        return await future

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Answer inside the `with` block."""
        self._task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._thread.shutdown(cancel_futures=True)

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            end = asyncio.get_running_loop().time() + self._wait
            while len(batch) < self._size:
                left = end - asyncio.get_running_loop().time()
                try:
                    batch.append(await asyncio.wait_for(self._queue.get(), max(left, 0)))
                except TimeoutError:
                    break
            # Whoever gave up while waiting is not answered.
            batch = [(question, future) for question, future in batch if not future.done()]
            if batch:
                await self._batch(batch)

    async def _batch(self, batch: list[tuple[Question, asyncio.Future[str]]]) -> None:
        self.batches = [*self.batches[-999:], len(batch)]
        try:
            asking = asyncio.get_running_loop().run_in_executor
            said = list(await asking(self._thread, self._answer, [question for question, _ in batch]))
            if len(said) != len(batch):
                raise RuntimeError(f"{len(batch)} questions got {len(said)} answers")
        except Exception as error:
            # The model is somebody else's code: whatever it raises belongs to a question, and the server keeps running.
            if len(batch) > 1:
                for one in batch:
                    await self._batch([one])
                return
            if not batch[0][1].done():
                batch[0][1].set_exception(error)
            return
        for (_, future), text in zip(batch, said, strict=True):
            if not future.done():
                future.set_result(text)

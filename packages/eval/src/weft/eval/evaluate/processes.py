"""Batches of an evaluation shared by the processes of a `torch.distributed` group.

A batch is what one process would have put together, and one process computes it. So every prediction is bit for bit
that of a single process, none is made twice, and the number of records need not divide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import chain
from typing import Any, TypeVar

from weft.eval.metrics.processes import of_everyone, place

Result = TypeVar("Result")

_shared: ContextVar[bool] = ContextVar("weft_shared_batches", default=False)


@contextmanager
def shared_batches() -> Iterator[None]:
    """Let the processes of the group share the batches of every evaluation inside; alone, change nothing.

    All processes must enter with the same records and the same batch size, and each holds the whole model. All of
    them get all predictions.
    """
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


def each_batch(
    chunks: Sequence[Sequence[Any]],
    run: Callable[[Sequence[Any]], Result],
    progress: Callable[[int], None] | None = None,
) -> list[Result]:
    """Run every batch, here or, within `shared_batches`, on one of the processes.

    Args:
        chunks: The batches, the same on all processes.
        run: Computes one batch; its result must pickle.
        progress: Called with the number of samples done so far, over all processes.

    Returns:
        The results in the order of the batches, on every process.
    """
    rank, size = place() if _shared.get() else (0, 1)
    own, done, total = [], 0, sum(map(len, chunks))
    for chunk in chunks[rank::size]:
        own.append(run(chunk))
        done += len(chunk)
        if progress is not None:
            # The others are about as far.
            progress(min(total, done * size))
    if size == 1:
        return own
    everyone = of_everyone(own)
    return [everyone[number % size][number // size] for number in range(len(chunks))]


def by_record(
    records: Sequence[Any],
    run: Callable[[Sequence[Any]], Sequence[Result]],
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Result]:
    """Record id to what `run` gives for it in its batch; see `each_batch`."""
    found = each_batch(chunks(records, batch_size), run, progress)
    return dict(zip((record.id for record in records), chain.from_iterable(found), strict=True))


def chunks(items: Any, size: int) -> list[Any]:
    """Slices of a sequence, all but the last of one size."""
    return [items[start : start + size] for start in range(0, len(items), size)]

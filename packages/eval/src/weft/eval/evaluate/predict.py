"""What a model predicts for the records of one task, whatever their type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from weft.data import Record
from weft.eval.evaluate.classify import classify
from weft.eval.evaluate.kinds import Mode, kind_of
from weft.eval.evaluate.processes import by_record
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.rerank import rerank as two_stages
from weft.eval.evaluate.retrieve import retrieve
from weft.eval.metrics.matches import Matches
from weft.eval.readers import ABILITIES, Ability, Reader

Predictions = dict[str, str] | Matches
_NEEDED: Mapping[Mode, Ability] = {
    "generate": "write",
    "true_false": "score",
    "retrieve": "embed",
    "classify": "classify",
}


def predict(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: ReaderBatches,
    *,
    batch_size: int = 128,
    progress: Callable[[int], None] | None = None,
    rerank: Mapping[str, Any] | None = None,
) -> Predictions:
    """Predict every record of one task.

    Args:
        model: A model that its reader can ask as `unfit` says; routed to `task` if it can be.
        task: Name of the task.
        records: The records.
        batches: Puts the records to the model by its reader.
        batch_size: Records per pass.
        progress: Called with the number of records done so far.
        rerank: Options of `weft.eval.evaluate.rerank.rerank` for a second stage of retrieval; None has none.

    Returns:
        Record id to answer (`"true"` or `"false"` for judgements; the best class, and beside it the best few, for
        images of classes), or the features of texts and images.
    """
    run: Callable[..., Predictions] = answers
    if kind_of(records).mode == "classify":
        run = classify
    elif kind_of(records).mode == "retrieve":
        run = retrieve if rerank is None else partial(two_stages, **rerank)
    with asked(model, task):
        return run(model, task, records, batches, batch_size=batch_size, progress=progress)


@contextmanager
def asked(model: Any, task: str) -> Iterator[None]:
    """Set a model up to be asked one task: no gradients, evaluation mode, routed; and back afterwards."""
    was_training = model.training
    model.eval()
    route: Callable[..., AbstractContextManager[Any]] = getattr(model, "route", lambda task: nullcontext())
    try:
        with torch.inference_mode(), route(task=task):
            yield
    finally:
        model.train(was_training)


def answers(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: ReaderBatches,
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Record id to answer, for every record of one task; `predict` sets the model up for it."""
    # Records of like length share a pass, so that little padding is computed; the result does not depend on it.
    ordered = sorted(records, key=lambda record: len(kind_of([record]).text(record)))
    return by_record(ordered, partial(batches.answers, model, task), batch_size, progress)


def unfit(reader: Reader, records: Sequence[Record]) -> str | None:
    """Why a model that is read so cannot answer records of this type, or None if it can."""
    kind = kind_of(records)
    needed = _NEEDED[kind.mode]
    if (reason := reader.lacking(needed)) is None:
        return None
    return f"records of type {kind.record_type!r} need a model that can {ABILITIES[needed]}, but {reason}"

"""What a model predicts for the records of one task, whatever their type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

from weft.data import Record
from weft.eval.evaluate.abilities import ABILITIES, METHODS, Ability, lacking
from weft.eval.evaluate.generate import answers
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.kinds import Mode, kind_of
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.rerank import rerank as two_stages
from weft.eval.evaluate.retrieve import retrieve
from weft.eval.metrics.matches import Matches
from weft.eval.readers import Reader

Route = Callable[..., AbstractContextManager[Any]]
Predictions = dict[str, str] | Matches
_NEEDED: Mapping[Mode, Ability] = {"generate": "write", "true_false": "score", "retrieve": "embed"}


def predict(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: Batches | ReaderBatches,
    *,
    batch_size: int = 128,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
    rerank: Mapping[str, Any] | None = None,
) -> Predictions:
    """Predict every record of one task.

    Args:
        model: A model that `unfit` finds nothing wrong with; routed to `task` if it can be.
        task: Name of the task.
        records: The records.
        batches: Makes the inputs.
        batch_size: Records per pass.
        device: Where the model lies.
        progress: Called with the number of records done so far.
        rerank: Options of `weft.eval.evaluate.rerank.rerank` for a second stage of retrieval; None has none.

    Returns:
        Record id to answer (`"true"` or `"false"` for judgements), or the features of texts and images.
    """
    run: Callable[..., Predictions] = answers
    if kind_of(records).mode == "retrieve":
        run = retrieve if rerank is None else partial(two_stages, **rerank)
    with asked(model, task):
        return run(model, task, records, batches, batch_size=batch_size, device=device, progress=progress)


@contextmanager
def asked(model: Any, task: str) -> Iterator[None]:
    """Set a model up to be asked one task: no gradients, evaluation mode, routed; and back afterwards."""
    was_training = model.training
    model.eval()
    route: Route = getattr(model, "route", lambda task: nullcontext())
    try:
        with torch.inference_mode(), route(task=task):
            yield
    finally:
        model.train(was_training)


def unfit(model: Any, records: Sequence[Record]) -> str | None:
    """Why a model cannot answer records of this type, or None if it can.

    Args:
        model: The model, or what reads it.
        records: The records.
    """
    kind = kind_of(records)
    needed = _NEEDED[kind.mode]
    reason = lacking(model, needed)
    if reason is None:
        return None
    if isinstance(model, Reader):
        return f"records of type {kind.record_type!r} need a model that can {ABILITIES[needed]}, but {reason}"
    methods = "` and `".join(METHODS[needed])
    return f"records of type {kind.record_type!r} need a model with `{methods}` to {ABILITIES[needed]}, but {reason}"

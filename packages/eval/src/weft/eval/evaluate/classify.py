"""Classification: the classes of each picture of a split, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from weft.data import Record
from weft.eval.evaluate.processes import by_record
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.metrics.classify import FEW, RankedClasses


def classify(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: ReaderBatches,
    *,
    batch_size: int,
    progress: Callable[[int], None] | None = None,
) -> RankedClasses:
    """Rank the classes of a task for every record; its arguments are those of `weft.eval.evaluate.predict.predict`.

    Returns:
        Record id to its class, with the best few; of equal scores the class of the lower label first.
    """
    names = batches.classes[task].names
    features = batches.class_features(model, task, batch_size)

    def ranked(chunk: Sequence[Record]) -> list[list[str]]:
        scores = batches.class_scores(model, task, chunk, features)
        order = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :FEW].tolist()
        return [[names[place] for place in places] for places in order]

    return RankedClasses(by_record(records, ranked, batch_size, progress))

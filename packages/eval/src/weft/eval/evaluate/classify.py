"""Classification: the classes of each picture of a split, the likeliest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from weft.data import Record
from weft.eval.evaluate.processes import each_batch
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
    """Rank the classes of a task for every record; `weft.eval.evaluate.predict` sets the model up for it.

    Args:
        model: One that the reader of `batches` classifies with.
        task: Name of the task, which has classes in `batches`.
        records: The records.
        batches: Puts the records to the model by its reader.
        batch_size: Pictures, or texts about classes, of one pass.
        progress: Called with the number of records done so far.

    Returns:
        Record id to its class, with the best few; of equal scores the class of the lower label first.
    """
    names = batches.classes[task].names
    features = batches.class_features(model, task, batch_size)

    def ranked(chunk: Sequence[Record]) -> list[list[str]]:
        scores = batches.class_scores(model, task, chunk, features)
        order = scores.float().sort(dim=1, descending=True, stable=True).indices[:, :FEW].tolist()
        return [[names[place] for place in places] for places in order]

    chunks = [records[start : start + batch_size] for start in range(0, len(records), batch_size)]
    found = each_batch(chunks, ranked, progress)
    return RankedClasses(
        {
            record.id: best
            for chunk, part in zip(chunks, found, strict=True)
            for record, best in zip(chunk, part, strict=True)
        }
    )

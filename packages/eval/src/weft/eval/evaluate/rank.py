"""Answers chosen from given ones by their likelihood, instead of written freely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from weft.data import Record
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.predict import asked
from weft.eval.evaluate.processes import by_record
from weft.eval.evaluate.read import ReaderBatches

Candidates = Sequence[str] | Mapping[str, Sequence[str]]


def rank_answers(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: ReaderBatches,
    candidates: Candidates,
    *,
    keep: int = 128,
    per_token: bool = False,
    batch_size: int = 128,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Choose the likeliest of the given answers for every record.

    The score of an answer is the log-probability of its tokens, the end included. Equal scores go to the earlier
    candidate. How much of this can be saved is the reader's: an encoder and decoder encodes a record once, and where a
    record has more than `keep` candidates, those are scored whole whose first token after what all have in common is
    likeliest; a BLIP that answers does so too, and its score is smoothed as in training.

    Args:
        model: One that the reader of `batches` scores answers with; routed to `task` if it can be.
        task: Name of the task.
        records: The records.
        batches: Puts the records to the model by its reader.
        candidates: Answers that all records choose from, or record id to its own.
        keep: Candidates of one record that are scored whole.
        per_token: Divide the score by the number of tokens, so that long answers are not at a disadvantage.
        batch_size: Records of one pass of the encoder, and answers of one pass of the decoder.
        progress: Called with the number of records done so far.

    Returns:
        Record id to its answer.

    Raises:
        ScoreInputError: A record has no candidate, or `keep` is below 1.

    Source: the rank mode of BLIP's question answering, which UniAdapter uses (128 kept, sums, no length norm).
    """
    if keep < 1:
        raise ScoreInputError(f"`keep` must be at least 1, but is {keep}. Leave it at 128, or raise it.")
    own = _own(candidates, records)

    def choice(rows: Sequence[Record]) -> list[str]:
        given = [own[record.id] for record in rows]
        return batches.chosen(model, task, rows, given, keep=keep, per_token=per_token, batch_size=batch_size)

    with asked(model, task):
        return by_record(records, choice, batch_size, progress)


def _own(candidates: Candidates, records: Sequence[Record]) -> Mapping[str, Sequence[str]]:
    """Record id to its candidates."""
    own = candidates if isinstance(candidates, Mapping) else {record.id: candidates for record in records}
    bare = [record.id for record in records if not own.get(record.id)]
    if bare:
        raise ScoreInputError(
            f"`candidates` must give every record at least one answer, but {len(bare)} have none, such as "
            f"{bare[0]!r}. Pass a list for all, or one per record id."
        )
    return own

"""A preview of a row: the prompt as the model reads it, and the tokens that are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from torch import Tensor

from weft.eval.readers.batch import IGNORED
from weft.eval.readers.reader import Reader
from weft.eval.readers.rows import Row

IDS, MASK = "input_ids", "attention_mask"
_RUN = 4  # repeated tokens are counted from here on


@dataclass(frozen=True)
class Preview:
    """A row as a model is trained on it.

    Attributes:
        prompt: What is read, its special tokens included; a token that is repeated is written once, with its number.
        learned: The tokens of the answers, each decoded.
    """

    prompt: str
    learned: tuple[str, ...]

    def __str__(self) -> str:
        learned = f" -> {' | '.join(map(repr, self.learned))}" if self.learned else ""
        return f"{self.prompt!r}{learned}"


def preview(reader: Reader, row: Row) -> Preview:
    """A preview of what a reader makes of a row with an answer; without a tokenizer, its text and answer as they are.

    Raises:
        ReaderError: As `Reader.training`.
    """
    if row.classes is not None:
        texts = row.classes.texts[row.classes.label(row)]
        said = texts if "embed" in reader.abilities else (row.answer or "",)
        return Preview(f"one of {len(row.classes.names)} classes", said)
    tokenizer = reader.processor.tokenizer
    if tokenizer is None:
        return Preview(row.text, () if row.answer is None else (row.answer,))
    if reader.objective == "contrastive":
        asked = reader.asking([replace(row, answer=None)])
        return Preview(written(tokenizer, _kept(asked.inputs)), ())
    batch = reader.training([row])
    assert batch.labels is not None, "a batch that teaches to write has labels"
    ids, labels = batch.inputs[IDS][0], batch.labels[0]
    places = labels != IGNORED
    learned = [tokenizer.decode([token]) for token in labels[places].tolist()]
    # Where prompt and answer are one sequence, labels are at the tokens that they name.
    if ids.shape == labels.shape and bool((ids[places] == labels[places]).all()):
        prompt = ids[~places & batch.inputs[MASK][0].bool()].tolist()
    else:
        prompt = _kept(batch.inputs)
    return Preview(written(tokenizer, prompt), tuple(learned))


def _kept(inputs: dict[str, Tensor]) -> list[int]:
    ids = inputs[IDS][0]
    return (ids[inputs[MASK][0].bool()] if MASK in inputs else ids).tolist()


def written(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as text, special ones included; four or more of one kind in a row are written once, with their number."""
    parts: list[str] = []
    pending: list[int] = []
    for token, group in groupby(ids):
        count = len(list(group))
        if count < _RUN:
            pending += [token] * count
            continue
        parts += [tokenizer.decode(pending), f"{tokenizer.decode([token])}×{count}"]
        pending = []
    return "".join([*parts, tokenizer.decode(pending)])

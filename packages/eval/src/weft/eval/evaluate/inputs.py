"""What the records of a task are read as: their text with its prompt, and what answers them."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from weft.data import Record
from weft.eval.evaluate.kinds import kind_of


@dataclass(frozen=True)
class TextRules:
    """How the texts of one task are written.

    Args:
        prompt: Put before the text, such as `"vqa: "`.
        prompt_at: `start`, or `end` for a prompt after the text, separated by a space.
        max_text_tokens: Texts are cut there.
        max_target_tokens: Targets are cut there.
        max_new_tokens: Longest generated answer.
        num_beams: Beams of generation.
        no_repeat_ngram_size: Forbids repeated n-grams in generation; 0 allows them.
        early_stopping: End a search with beams once it has as many answers as beams.
        answers: `drawn` trains on one answer of a question in each epoch; `all` on every one, weighted by the share
            of annotators who gave it.
    """

    prompt: str = ""
    prompt_at: Literal["start", "end"] = "start"
    max_text_tokens: int = 64
    max_target_tokens: int = 64
    max_new_tokens: int = 20
    num_beams: int = 1
    no_repeat_ngram_size: int = 0
    early_stopping: bool = False
    answers: Literal["drawn", "all"] = "drawn"

    @property
    def search(self) -> tuple[int, int, bool]:
        """How answers are searched for: what rows that are written in one pass have in common."""
        return self.num_beams, self.no_repeat_ngram_size, self.early_stopping

    def written(self, text: str) -> str:
        """A text with its prompt."""
        return self.prompt + text if self.prompt_at == "start" else f"{text} {self.prompt}".lstrip()


@dataclass(frozen=True)
class Example:
    """What one training row reads and writes.

    Attributes:
        text: What it reads, without the prompt.
        target: What it should write, or None where nothing is written.
        weight: Weight of its loss, in 0..1.
    """

    text: str
    target: str | None
    weight: float


def example(record: Record, task: str, *, seed: int, epoch: int) -> Example:
    """What a record of a task is to train on in an epoch; drawn from these arguments and nothing else."""
    kind, rng = kind_of([record]), random.Random(f"{seed}/{task}/{record.id}/{epoch}")
    if kind.draw is not None:
        return Example(*kind.draw(record, rng))
    if kind.target is None:
        return Example(kind.text(record), None, 1.0)
    return Example(kind.text(record), *kind.target(record, rng))


def all_answers(record: Any) -> tuple[tuple[str, float], ...]:
    """Every answer to a question, with the share of annotators who gave it; none weighs nothing."""
    counts = Counter(record.answers)
    return tuple((answer, count / counts.total()) for answer, count in counts.items()) or (("", 0.0),)

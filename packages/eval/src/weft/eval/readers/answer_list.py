"""Answers ranked as BLIP ranks them: the likeliest of a list."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.eval.readers.errors import ReaderError


def likeliest(
    model: Any,
    states: Tensor,
    attention_mask: Tensor,
    answers: Tensor,
    answer_mask: Tensor,
    *,
    candidates: int = 128,
) -> Tensor:
    """The likeliest answer of each question, in two steps.

    The probability of an answer's first token chooses candidates; the loss of the whole answer, summed over its tokens
    and smoothed as in training, decides between them. With as many candidates as answers it is the exact best.

    Args:
        model: A `weft.core.composites.BlipAnswering`.
        states: `model.encode_question(...)`, shape `(questions, length, width)`.
        attention_mask: Of the questions, shape `(questions, length)`.
        answers: Tokens of every answer with its first and last special one, shape `(answers, tokens)`.
        answer_mask: Shape `(answers, tokens)`.
        candidates: Answers that are read whole.

    Returns:
        Index of the best answer of each question, shape `(questions,)`; of equal ones the first.

    Raises:
        ReaderError: If there is no answer, or `candidates` is below 1.

    Source: BLIP's code for VQA.
    """
    if candidates < 1 or len(answers) == 0:
        raise ReaderError(
            f"`candidates` and `answers` must hold at least one, but are {candidates} and {len(answers)}. BLIP reads "
            "128 of 3,128 answers."
        )
    count, questions = min(candidates, len(answers)), len(states)
    start = answers[:1, :1].expand(questions, 1)
    first = model.answer_logits(start, torch.ones_like(start), states, attention_mask)[:, 0]
    odds = first.float().log_softmax(dim=1)[:, answers[:, 1]]
    # A stable order: answers that begin with the same token are taken in the order of the list.
    chosen = odds.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values
    losses = model.answer_losses(
        answers[chosen].flatten(0, 1),
        answer_mask[chosen].flatten(0, 1),
        states.repeat_interleave(count, dim=0),
        attention_mask.repeat_interleave(count, dim=0),
    ).view(questions, count)
    best: Tensor = chosen.gather(1, losses.argmin(dim=1, keepdim=True)).squeeze(1)
    return best

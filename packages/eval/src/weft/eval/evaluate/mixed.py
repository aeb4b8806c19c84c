"""Answers to records of several tasks in one pass, each row routed to its own task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from weft.data import Record
from weft.eval.evaluate.generate import generated, judged
from weft.eval.evaluate.inputs import Batches, TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.read import TRUTHS, ReaderBatches, computed_in
from weft.eval.readers import Writing
from weft.eval.readers.one_sequence import OneSequence

Asked = Sequence[tuple[str, Record]]


def answer_mixed(
    model: Any, asked: Asked, batches: Batches | ReaderBatches, *, device: str | torch.device = "cpu"
) -> list[str]:
    """Answer records of any mixture of tasks by the rules of each, in as few passes as their rules allow.

    Rows that are written by the same search share a pass, whatever their tasks; each answer is what
    `weft.eval.evaluate.predict` gives for its task alone.

    Args:
        model: An adapted model, in evaluation mode.
        asked: Task and record of each row.
        batches: Makes the inputs.
        device: Where the model lies.

    Returns:
        An answer for each row, "true" or "false" for judgements.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, (task, record) in enumerate(asked):
        groups.setdefault(_together(task, record, batches), []).append(place)
    answers = [""] * len(asked)
    with torch.inference_mode():
        for places in groups.values():
            said = _pass(model, [asked[place] for place in places], batches, device)
            for place, text in zip(places, said, strict=True):
                answers[place] = text
    return answers


def _together(task: str, record: Record, batches: Batches | ReaderBatches) -> Hashable:
    """What rows of one pass have in common."""
    mode, rules = kind_of([record]).mode, batches.rules[task]
    search = (rules.num_beams, rules.no_repeat_ngram_size, rules.early_stopping)
    if isinstance(batches, Batches):
        return mode, *search, rules.max_new_tokens, rules.max_target_tokens, len(record.media_refs())
    return mode, *search, None if _is_cut(batches, rules) else rules.max_new_tokens


def _is_cut(batches: ReaderBatches, rules: TextRules) -> bool:
    """Whether a longer answer begins with the shorter one, so that rows of several lengths share a pass."""
    return rules.num_beams == 1 and isinstance(batches.reader, OneSequence)


def _pass(
    model: Any, asked: Asked, batches: Batches | ReaderBatches, device: str | torch.device
) -> list[str]:
    tasks = [task for task, _ in asked]
    judges = kind_of([asked[0][1]]).mode == "true_false"
    if isinstance(batches, Batches):
        inputs = {name: value.to(device) for name, value in batches.mixed(asked).items()}
        with model.route(tasks=tasks):
            return (judged if judges else generated)(model, inputs, batches, tasks[0])
    rows = [batches.row(task, record) for task, record in asked]
    if judges:
        with model.route(tasks=[task for task in tasks for _ in TRUTHS]):
            scores = batches.reader.score(
                model, rows, [TRUTHS] * len(rows), batch_size=len(TRUTHS) * len(rows)
            )
        return [TRUTHS[0] if true > false else TRUTHS[1] for true, false in scores]
    batch = batches.asker.asking(rows).to(device, dtype=computed_in(model))
    limits = [batches.rules[task].max_new_tokens for task in tasks]
    rules = batches.rules[tasks[0]]
    writing = Writing(max(limits), rules.num_beams, rules.no_repeat_ngram_size, rules.early_stopping)
    with model.route(tasks=tasks):
        tokens = batches.reader.generate(model, batch, writing)
    decode = batches.reader.processor.tokenizer.decode
    cut = _is_cut(batches, rules)
    return [
        decode(row[:limit] if cut else row, skip_special_tokens=True).strip()
        for row, limit in zip(tokens, limits, strict=True)
    ]

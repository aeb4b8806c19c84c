"""Answers to records of several tasks in one pass, each row routed to its own task."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch

from weft.data import Record
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.read import TRUTHS, ReaderBatches
from weft.eval.readers import Writing
from weft.eval.readers.one_sequence import OneSequence

Asked = Sequence[tuple[str, Record]]


def answer_mixed(model: Any, asked: Asked, batches: ReaderBatches) -> list[str]:
    """Answer records of any mixture of tasks by the rules of each, in as few passes as their rules allow.

    Rows that are written by the same search share a pass, whatever their tasks; each answer is what
    `weft.eval.evaluate.predict` gives for its task alone.

    Args:
        model: An adapted model, in evaluation mode.
        asked: Task and record of each row.
        batches: Puts the records to the model by its reader.

    Returns:
        An answer for each row, "true" or "false" for judgements.
    """
    groups: dict[Hashable, list[int]] = {}
    for place, (task, record) in enumerate(asked):
        groups.setdefault(_together(task, record, batches), []).append(place)
    answers = [""] * len(asked)
    with torch.inference_mode():
        for places in groups.values():
            said = _pass(model, [asked[place] for place in places], batches)
            for place, text in zip(places, said, strict=True):
                answers[place] = text
    return answers


def _together(task: str, record: Record, batches: ReaderBatches) -> Hashable:
    """What rows of one pass have in common."""
    mode, rules = kind_of([record]).mode, batches.rules[task]
    length = None if _is_cut(batches, rules) else rules.max_new_tokens
    shown = (len(record.media_refs()), rules.max_target_tokens) if batches.reader.paired else None
    return mode, rules.search, length, shown


def _is_cut(batches: ReaderBatches, rules: TextRules) -> bool:
    """Whether a longer answer begins with the shorter one, so that rows of several lengths share a pass."""
    return rules.num_beams == 1 and isinstance(batches.reader, OneSequence)


def _pass(model: Any, asked: Asked, batches: ReaderBatches) -> list[str]:
    tasks = [task for task, _ in asked]
    rows = [batches.row(task, record) for task, record in asked]
    if kind_of([asked[0][1]]).mode == "true_false":
        with model.route(tasks=[tasks[row] for row in batches.reader.read_for([TRUTHS] * len(rows))]):
            return batches.judged(model, rows)
    batch = batches.asker.asking(rows).beside(model)
    limits = [batches.rules[task].max_new_tokens for task in tasks]
    rules = batches.rules[tasks[0]]
    writing = Writing(max(limits), *rules.search)
    with model.route(tasks=tasks):
        tokens = batches.reader.generate(model, batch, writing)
    decode = batches.reader.processor.tokenizer.decode
    cut = _is_cut(batches, rules)
    return [
        decode(row[:limit] if cut else row, skip_special_tokens=True).strip()
        for row, limit in zip(tokens, limits, strict=True)
    ]

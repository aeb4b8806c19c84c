"""Predictions of a sequence-to-sequence model: written answers, and true or false by logits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.data.records import Record
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.processes import each_batch


def answers(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: Batches,
    *,
    batch_size: int,
    device: str | torch.device,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Answer every record of one task; `weft.eval.evaluate.predict` sets the model up for it.

    Args:
        model: A model with `generate` and `forward` of the Hugging Face form.
        task: Name of the task.
        records: The records.
        batches: Makes the inputs.
        batch_size: Records per pass.
        device: Where the model lies.
        progress: Called with the number of records done so far.

    Returns:
        Record id to answer. Records of true-or-false tasks get `"true"` or `"false"`.
    """
    answer = _true_false if kind_of(records).mode == "true_false" else _generate

    def run(chunk: Sequence[Record]) -> list[str]:
        inputs = {k: v.to(device) for k, v in batches.inputs(task, chunk).items()}
        return answer(model, inputs, batches, task)

    chunks = list(_chunks(records, batch_size))
    predictions: dict[str, str] = {}
    for chunk, texts in zip(chunks, each_batch(chunks, run, progress), strict=True):
        predictions.update(zip((record.id for record in chunk), texts, strict=True))
    return predictions


def _generate(model: Any, inputs: dict[str, Tensor], batches: Batches, task: str) -> list[str]:
    rules = batches.rules[task]
    tokens = model.generate(
        **inputs,
        max_new_tokens=rules.max_new_tokens,
        num_beams=rules.num_beams,
        no_repeat_ngram_size=rules.no_repeat_ngram_size,
        early_stopping=rules.early_stopping,
        do_sample=False,
    )
    return [text.strip() for text in batches.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _true_false(model: Any, inputs: dict[str, Tensor], batches: Batches, task: str) -> list[str]:
    """Compare the logits of "true" and "false" at the first place where the two answers differ."""
    words = batches.tokenizer(["true", "false"]).input_ids
    place = next(k for k, (a, b) in enumerate(zip(*words, strict=False)) if a != b)
    prefix = torch.tensor([[start_token(model), *words[0][:place]]], device=inputs["input_ids"].device)
    logits = model(**inputs, decoder_input_ids=prefix.expand(len(inputs["input_ids"]), -1)).logits[:, -1]
    is_true = logits[:, words[0][place]] > logits[:, words[1][place]]
    return ["true" if truth else "false" for truth in is_true.tolist()]


def start_token(model: Any) -> int:
    """The token that every answer of a model begins after."""
    config = getattr(model.config, "language_config", model.config)
    return int(config.decoder_start_token_id)


def _chunks(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    # Records of like length share a pass, so that little padding is computed; the result does not depend on it.
    order = sorted(range(len(records)), key=lambda k: len(kind_of([records[k]]).text(records[k])))
    for start in range(0, len(order), size):
        yield [records[k] for k in order[start : start + size]]

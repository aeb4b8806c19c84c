"""Predictions of a model that writes: written answers, and true or false by likelihood."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from weft.data import Record
from weft.eval.evaluate.abilities import continues_prompt, lacking
from weft.eval.evaluate.inputs import Batches
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.processes import each_batch
from weft.eval.evaluate.rank_blip import choose, encode_answers
from weft.eval.evaluate.read import ReaderBatches


def answers(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: Batches | ReaderBatches,
    *,
    batch_size: int,
    device: str | torch.device,
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Answer every record of one task; `weft.eval.evaluate.predict` sets the model up for it.

    Args:
        model: A model with `generate` and `forward` of the Hugging Face form; one that continues its prompt is given
            padding on the left, whatever the side of the tokenizer, and its answers are what follows the prompt.
        task: Name of the task.
        records: The records.
        batches: Makes the inputs; those of a reader let it write and score.
        batch_size: Records per pass.
        device: Where the model lies.
        progress: Called with the number of records done so far.

    Returns:
        Record id to answer. Records of true-or-false tasks get `"true"` or `"false"`.
    """
    answer = judged if kind_of(records).mode == "true_false" else generated

    def run(chunk: Sequence[Record]) -> list[str]:
        if isinstance(batches, ReaderBatches):
            return batches.answers(model, task, chunk, device)
        inputs = {k: v.to(device) for k, v in batches.inputs(task, chunk).items()}
        return answer(model, inputs, batches, task)

    chunks = list(_chunks(records, batch_size))
    predictions: dict[str, str] = {}
    for chunk, texts in zip(chunks, each_batch(chunks, run, progress), strict=True):
        predictions.update(zip((record.id for record in chunk), texts, strict=True))
    return predictions


def generated(model: Any, inputs: dict[str, Tensor], batches: Batches, task: str) -> list[str]:
    """Answers that a model writes.

    Args:
        model: The model.
        inputs: What it reads, from `batches`.
        batches: Made the inputs.
        task: Task whose rules hold.
    """
    rules = batches.rules[task]
    if continues_prompt(model):
        inputs = _padded_left(inputs)
    tokens = model.generate(
        **inputs,
        max_new_tokens=rules.max_new_tokens,
        num_beams=rules.num_beams,
        no_repeat_ngram_size=rules.no_repeat_ngram_size,
        early_stopping=rules.early_stopping,
        do_sample=False,
    )
    if continues_prompt(model):
        tokens = _behind(inputs["input_ids"], tokens)
    return [text.strip() for text in batches.tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def judged(model: Any, inputs: dict[str, Tensor], batches: Batches, task: str) -> list[str]:
    """Compare the logits of "true" and "false" at the first place where the two answers differ.

    A BLIP that answers compares the losses of the two words, as it does with any list of answers. Arguments as in
    `generated`.
    """
    truths = ["true", "false"]
    if lacking(model, "weigh") is None:
        longest = batches.rules[task].max_target_tokens
        return choose(model, inputs, truths, encode_answers(batches.tokenizer, truths, longest))
    continues = continues_prompt(model)
    words = batches.tokenizer(truths, add_special_tokens=not continues).input_ids
    place = next(k for k, (a, b) in enumerate(zip(*words, strict=False)) if a != b)
    if continues:
        logits = model(**_continued(_padded_left(inputs), words[0][:place])).logits[:, -1]
    else:
        prefix = torch.tensor([[start_token(model), *words[0][:place]]], device=inputs["input_ids"].device)
        logits = model(**inputs, decoder_input_ids=prefix.expand(len(inputs["input_ids"]), -1)).logits[:, -1]
    is_true = logits[:, words[0][place]] > logits[:, words[1][place]]
    return ["true" if truth else "false" for truth in is_true.tolist()]


def start_token(model: Any) -> int:
    """The token that every answer of a model begins after."""
    config = getattr(model.config, "language_config", model.config)
    return int(config.decoder_start_token_id)


def _padded_left(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Inputs whose rows end with their last token, so that all go on from there."""
    mask = inputs["attention_mask"]
    order = mask.argsort(dim=1, stable=True)
    return {
        name: value.gather(1, order) if value.shape == mask.shape else value for name, value in inputs.items()
    }


def _continued(inputs: dict[str, Tensor], tokens: Sequence[int]) -> dict[str, Tensor]:
    """Inputs whose rows continue with the same tokens."""
    shape = inputs["attention_mask"].shape
    rows = torch.tensor(tokens, dtype=torch.long, device=inputs["input_ids"].device).expand(shape[0], -1)
    more = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    return {
        name: torch.cat([value, more.get(name, torch.zeros_like(rows)).to(value.dtype)], 1)
        if value.shape == shape
        else value
        for name, value in inputs.items()
    }


def _behind(prompts: Tensor, tokens: Tensor) -> Tensor:
    """What was generated behind the prompts; models that generate from embeddings return it alone."""
    width = prompts.shape[1]
    return tokens[:, width:] if torch.equal(tokens[:, :width], prompts) else tokens


def _chunks(records: Sequence[Record], size: int) -> Iterator[Sequence[Record]]:
    # Records of like length share a pass, so that little padding is computed; the result does not depend on it.
    order = sorted(range(len(records)), key=lambda k: len(kind_of([records[k]]).text(records[k])))
    for start in range(0, len(order), size):
        yield [records[k] for k in order[start : start + size]]

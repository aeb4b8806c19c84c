"""The loss of BLIP's question answering: every answer by its weight, given the question and the image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.eval.evaluate.inputs import IGNORED


def losses(model: Any, batch: dict[str, Any]) -> Tensor:
    """`loss_b = sum_j weight_bj · sum_t -log p(answer_bjt | question_b, image_b)`, smoothed as the model's config says.

    Args:
        model: A `weft.core.composites.BlipAnswering`, which a wrapper such as data parallelism may hold.
        batch: `input_ids`, `attention_mask`, `pixel_values` of the questions, `labels` of shape `(answers, length)`,
            where -100 is padding, and `weights` of shape `(answers,)`; `counts` of shape `(batch,)` says how many
            answers belong to each question, one by default.

    Returns:
        Shape `(batch,)`.

    Source: BLIP's code for VQA; the weight of an answer is the share of annotators who gave it.
    """

    def compute(inner: Any) -> Tensor:
        states = inner.encode_question(batch["input_ids"], batch["attention_mask"], batch["pixel_values"])
        labels, weights = batch["labels"], batch["weights"]
        rows = torch.arange(len(states), device=states.device)
        owners = rows.repeat_interleave(batch["counts"]) if "counts" in batch else rows
        mask = (labels != IGNORED).long()
        padding = inner.config.text_config.pad_token_id
        each = inner.answer_losses(
            labels.masked_fill(mask == 0, padding), mask, states[owners], batch["attention_mask"][owners]
        )
        return each.new_zeros(len(states)).index_add(0, owners, weights.to(each.dtype) * each)

    found: Tensor = model(compute=compute)
    return found

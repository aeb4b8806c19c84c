"""The loss of BLIP's captioning: every token behind the prompt counts the same, over the whole batch."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from weft.eval.evaluate.inputs import IGNORED


def losses(model: Any, batch: dict[str, Any]) -> Tensor:
    """`loss_b = B / N * weight_b * sum_t -log p(caption_bt | image_b)`, with `N` tokens in the batch's `B` captions.

    Their mean is the mean over tokens. It is smoothed as the model's config says.

    Args:
        model: A `weft.core.composites.BlipCaptioning`, which a wrapper such as data parallelism may hold.
        batch: `input_ids` and `attention_mask` of the prompts, `pixel_values`, `labels` of shape `(batch, length)`,
            where -100 is padding, and `weights` of shape `(batch,)`.

    Returns:
        Shape `(batch,)`.

    Source: BLIP's code for captioning.
    """

    def compute(inner: Any) -> Tensor:
        mask = (batch["labels"] != IGNORED).long()
        sums, counts = inner.caption_losses(
            batch["input_ids"],
            batch["attention_mask"],
            batch["pixel_values"],
            batch["labels"].masked_fill(mask == 0, inner.config.text_config.pad_token_id),
            mask,
        )
        weighted: Tensor = batch["weights"].to(sums.dtype) * sums * (len(sums) / counts.sum())
        return weighted

    found: Tensor = model(compute=compute)
    return found

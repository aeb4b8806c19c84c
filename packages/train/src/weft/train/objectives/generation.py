"""The loss of written answers: captions, questions, and true or false as words."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from weft.eval.evaluate.abilities import continues_prompt
from weft.eval.evaluate.inputs import IGNORED


def losses(model: Any, batch: dict[str, Any]) -> Tensor:
    """Cross-entropy of the target's tokens, averaged within each example.

    `loss_b = weight_b · mean_t -log p(label_bt)`

    Where a model reads prompt and answer as one sequence, the logits at a place are those of the next label.

    Args:
        model: A sequence-to-sequence model, or a decoder-only one, whose labels are as long as its inputs.
        batch: What the model reads, rows first, with `labels` of shape `(batch, target)`, where -100 is not
            scored, and `weights` of shape `(batch,)`, such as the soft score of the drawn answer.

    Returns:
        Shape `(batch,)`.

    Source: VL-Adapter, section 3; its code averages tokens within an example, then examples. Difference: for
        captions it averages over all tokens of the batch, so that long ones count more.
    """
    inputs = dict(batch)
    weights, labels = inputs.pop("weights"), inputs["labels"]
    logits = model(**inputs).logits
    if continues_prompt(model):
        logits, labels = logits[:, :-1], labels[:, 1:]
    per_token = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.reshape(-1), ignore_index=IGNORED, reduction="none"
    ).view(labels.shape)
    scored = (labels != IGNORED).sum(1).clamp(min=1)
    return per_token.sum(1) / scored * weights.to(per_token.dtype)

"""The loss of retrieval: in a batch, every text finds its image and every image its text."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

COMPARES_ROWS = True


def losses(model: Any, batch: dict[str, Any]) -> Tensor:
    """Symmetric InfoNCE over the rows of a batch.

    `loss_b = (-log softmax_j(s <t_b, v_j>)_b - log softmax_j(s <v_b, t_j>)_b) / 2`

    Rows that show the same text or the same image are no negatives of one another.

    Args:
        model: Gives `text_embeds`, `image_embeds` of length one and `logit_scale`, the `s` above.
        batch: What the model reads, with `same_text` and `same_image` of `weft.eval.evaluate.inputs`.

    Returns:
        Shape `(batch,)`.

    Source: CLIP (Radford et al. 2021), figure 3; the rule about equal rows is ours.
    """
    inputs = dict(batch)
    text, image = inputs.pop("same_text"), inputs.pop("same_image")
    output = model(**inputs)
    similarity = output.logit_scale * (output.text_embeds @ output.image_embeds.T).float()
    alike = (text[:, None] == text) | (image[:, None] == image)
    alike.fill_diagonal_(False)
    similarity = similarity.masked_fill(alike, float("-inf"))
    own = torch.arange(len(text), device=text.device)
    to_image = functional.cross_entropy(similarity, own, reduction="none")
    to_text = functional.cross_entropy(similarity.T, own, reduction="none")
    return (to_image + to_text) / 2

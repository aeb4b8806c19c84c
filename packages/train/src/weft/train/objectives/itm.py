"""Image-text matching: does this text belong to this image? Pairs, and two hard negatives for each."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from weft.core.units.frame_attention import frame_weights
from weft.train.errors import RunError
from weft.train.objectives.gathering import gathered, gathered_texts

Negatives = Literal["local", "gathered"]


def hard_negatives(similarity: Tensor, ids: Tensor, columns: Tensor) -> Tensor:
    """Draw a negative for every row, likelier the more it looks like a match.

    Args:
        similarity: Divided by the temperature, shape `(rows, candidates)`.
        ids: Image of each row, shape `(rows,)`.
        columns: Image of each candidate, shape `(candidates,)`.

    Returns:
        Column of the negative of each row, shape `(rows,)`.

    Raises:
        RunError: If a row has no candidate of another image.
    """
    other = ids[:, None] != columns[None]
    if not bool(other.any(dim=1).all()):
        raise RunError(
            "`batch_size` must be such that every row finds a text or image that is not its own, but some batch shows "
            "one image alone. Raise it, or mix the records."
        )
    odds = similarity.detach().float().masked_fill(~other, float("-inf")).softmax(dim=1)
    # A candidate far behind the best underflows to zero; it stays possible, as long as it is none of the same image.
    odds = (odds + 1e-12) * other
    return torch.multinomial(odds, 1).squeeze(1)


def itm_losses(
    model: Any,
    batch: dict[str, Tensor],
    video: Any,
    text: Tensor,
    ids: Tensor,
    *,
    temperature: Tensor | float,
    negatives: Negatives = "local",
    frame_aware: bool = False,
) -> Tensor:
    """Cross-entropy over each pair, its image's hard negative text and its text's hard negative image.

    Args:
        model: A `weft.core.composites.BlipRetrieval`.
        batch: `input_ids` and `attention_mask`, shape `(rows, length)`.
        video: What `model.encode_video` gave.
        text: What `model.encode_text` gave, shape `(rows, size)`.
        ids: Which rows show the same image, shape `(rows,)`.
        temperature: Divisor of the similarities that negatives are drawn by.
        negatives: Whether they come from this process's rows or from all processes'. Image tokens are then gathered
            with their gradients.
        frame_aware: Whether keys of frames are weighted by their likeness to the text, in the mismatched pairs too.

    Returns:
        Shape `(rows,)`, the mean of a row's three.

    Source: ALBEF (Li et al. 2021), section 3.3, as BLIP's fine-tuning code has it.
    """
    rows = len(ids)
    own = {"ids": batch["input_ids"], "mask": batch["attention_mask"], "text": text}
    pool = {**own, "tokens": video.tokens, "frames": video.frames, "feature": video.feature, "image": ids}
    if negatives == "gathered":
        pool["ids"], pool["mask"] = gathered_texts(own["ids"], own["mask"])
        names = ("text", "tokens", "frames", "feature", "image")
        pool |= {name: gathered(pool[name]) for name in names}
        missing = pool["ids"].shape[1] - own["ids"].shape[1]
        own |= {name: functional.pad(own[name], (0, missing)) for name in ("ids", "mask")}
    with torch.no_grad():
        images = hard_negatives(text @ pool["feature"].T / temperature, ids, pool["image"])
        texts = hard_negatives(video.feature @ pool["text"].T / temperature, ids, pool["image"])
    tokens = torch.cat([video.tokens, video.tokens, pool["tokens"][images]])
    frames = torch.cat([video.frames, video.frames, pool["frames"][images]])
    ids_of = torch.cat([own["ids"], pool["ids"][texts], own["ids"]])
    mask = torch.cat([own["mask"], pool["mask"][texts], own["mask"]])
    read = torch.cat([text, pool["text"][texts], text])
    weights = frame_weights(read, frames) if frame_aware else None
    logits = model.match(ids_of, mask, tokens, weights)
    truth = torch.zeros(3 * rows, dtype=torch.int64, device=logits.device)
    truth[:rows] = 1
    losses = functional.cross_entropy(logits.float(), truth, reduction="none")
    return losses.view(3, rows).mean(dim=0)

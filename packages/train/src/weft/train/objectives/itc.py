"""Image-text contrast with a slow model, a queue of its features, and soft targets."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.eval.metrics.processes import place
from weft.train.errors import RunError
from weft.train.objectives.gathering import gathered

UNUSED = -100


class FeatureQueue(nn.Module):
    """The newest features of the slow model, of both sides, with the ids of their images.

    Columns that were never written hold random features of length one. They are negatives like the others, and nobody's
    match, until the queue has gone round once.

    Args:
        size: Columns of the queue; a multiple of the rows that all processes add in a step.
        features: Width of a feature.
        rows: Rows that one process adds in a step.

    Raises:
        RunError: If the queue cannot be filled evenly.

    Source: the code of BLIP and of UniAdapter, which masks no column either.
    """

    images: Tensor
    texts: Tensor
    ids: Tensor
    place: Tensor

    def __init__(self, size: int, features: int, rows: int) -> None:
        super().__init__()
        step = rows * place()[1]
        if size < step or size % step:
            near = max(step, round(size / step) * step)
            raise RunError(
                f"`queue_size` must be a multiple of the rows of a step over all processes ({step}), but is {size}. "
                f"Take {near}, or another batch size."
            )
        # Columns that were never written have an id that no image has.
        self.register_buffer("images", functional.normalize(torch.randn(size, features), dim=1))
        self.register_buffer("texts", functional.normalize(torch.randn(size, features), dim=1))
        self.register_buffer("ids", torch.full((size,), UNUSED, dtype=torch.int64))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def push(self, images: Tensor, texts: Tensor, ids: Tensor) -> None:
        """Write rows of all processes over the oldest columns; the end is followed by the beginning.

        Args:
            images: Features of this process, shape `(rows, size)`.
            texts: The same of its texts.
            ids: Ids of its images, shape `(rows,)`.
        """
        images, texts, ids = gathered(images), gathered(texts), gathered(ids)
        where = (self.place + torch.arange(len(ids), device=ids.device)) % len(self.ids)
        self.images[where], self.texts[where], self.ids[where] = images, texts, ids
        self.place.copy_((self.place + len(ids)) % len(self.ids))


def itc_losses(
    image: Tensor,
    text: Tensor,
    slow_image: Tensor,
    slow_text: Tensor,
    ids: Tensor,
    queue: FeatureQueue,
    *,
    temperature: Tensor | float,
    alpha: float,
) -> Tensor:
    """Soft cross-entropy of each side against this process's slow features and the queue, averaged.

    The target of a row is `alpha softmax(slow similarities) + (1 - alpha) uniform(columns of the same image)`.

    Args:
        image: Features of length one, shape `(rows, size)`; of images or whole videos.
        text: The same of their texts.
        slow_image: Those of the slow model.
        slow_text: Those of the slow model.
        ids: Which rows show the same image, shape `(rows,)`, from 0.
        queue: Earlier slow features. It is read, not written.
        temperature: Divisor of the similarities.
        alpha: Share of the slow model's opinion in the targets.

    Returns:
        Shape `(rows,)`.

    Source: ALBEF (Li et al. 2021), section 3.3, as BLIP's fine-tuning code has it.
    """
    columns = torch.cat([ids, queue.ids])
    same = (ids[:, None] == columns[None]).float()
    hard = same / same.sum(dim=1, keepdim=True)
    losses = []
    for own, slow, other in (
        (image, slow_image, torch.cat([slow_text, queue.texts])),
        (text, slow_text, torch.cat([slow_image, queue.images])),
    ):
        with torch.no_grad():
            soft = (slow @ other.T / temperature).softmax(dim=1)
            target = alpha * soft + (1 - alpha) * hard
        losses.append(-(target * (own @ other.T / temperature).log_softmax(dim=1)).sum(dim=1))
    return (losses[0] + losses[1]) / 2

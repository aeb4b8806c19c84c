"""Images that a head reads through its encoder, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import torch
from torch import Tensor

from weft.core.errors import FewShotError

Read = Callable[[Sequence[int], int], Tensor]


class Images:
    """Images by position, each under one or several augmentations.

    Args:
        read: Positions and the number of an augmentation to pixel values as the encoder's own preprocessing makes them,
            shape (positions, channels, height, width).
        count: Number of images.
        views: Augmentations of each; the first one is what an image is scored by.
    """

    def __init__(self, read: Read, count: int, views: int = 1) -> None:
        self.read, self.count, self.views = read, count, views

    @classmethod
    def of(cls, pixel_values: Tensor | Images, name: str = "features") -> Images:
        """Images of pixel values that are in memory.

        Args:
            pixel_values: Shape (images, channels, height, width), or (views, images, …) with several augmentations.
            name: What messages call them.

        Raises:
            FewShotError: They have another shape, or are not finite.
        """
        if isinstance(pixel_values, Images):
            return pixel_values
        values, shown = pixel_values, type(pixel_values).__name__
        if isinstance(values, Tensor):
            shown = f"{values.dtype} of shape {tuple(values.shape)}"
        if not isinstance(values, Tensor) or not values.is_floating_point() or values.dim() not in (4, 5):
            raise FewShotError(
                f"`{name}` must be images, because this head adapts the encoder that reads them: floating-point pixel "
                f"values of shape (images, channels, height, width), but is {shown}. Give what the image processor "
                "makes, or `Images`, not features."
            )
        values = values if values.dim() == 5 else values[None]
        finite = torch.isfinite(values).flatten(2).all(-1).all(0)
        if not bool(finite.all()):
            bad = (~finite).nonzero().flatten().tolist()
            raise FewShotError(
                f"`{name}` must be finite, but {len(bad)} images are not, such as number {bad[0]}. Read them again."
            )
        return cls(lambda rows, view: values[view][list(rows)], values.shape[1], len(values))

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int, view: int = 0) -> Iterator[Tensor]:
        """Pixel values of all images in their order under one augmentation, at most `size` at a time."""
        for first in range(0, self.count, size):
            yield self.read(range(first, min(first + size, self.count)), view)

    def split(self, size: int) -> Iterator[Self]:
        """The images in their order, at most `size` at a time."""
        for first in range(0, self.count, size):
            yield type(self)(
                lambda rows, view, first=first: self.read([first + row for row in rows], view),  # type: ignore[misc]
                min(size, self.count - first),
                self.views,
            )

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """One random augmentation of each of some images, shape (rows, channels, height, width)."""
        chosen = torch.randint(self.views, rows.shape, generator=generator).tolist()
        places = rows.tolist()
        if len(set(chosen)) == 1:
            return self.read(places, chosen[0])
        return torch.cat([self.read([row], view) for row, view in zip(places, chosen, strict=True)])


Readable = Tensor | Images
"""What a head is fitted on and scores: features, or images where it adapts the encoder."""

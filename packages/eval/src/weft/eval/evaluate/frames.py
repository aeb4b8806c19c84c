"""From a record's video to what a model sees: frames spread evenly over it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor

from weft.data import MediaRef
from weft.data.media.video import Policy, decode_frames
from weft.eval.evaluate.visual import Images, Visual, generators
from weft.eval.readers.image_processor import Transform, stacked


@dataclass(frozen=True)
class Frames(Visual):
    """Decodes a frame of each of equal segments of a video: its middle in testing, a random one in training.

    Args:
        transform: Resize and normalisation of a frame.
        count: Frames of every video, none of them twice.
        keep_mib: Frames of videos that have no more than `count`, and so always show the same, are kept in memory up to
            this many MiB.
    """

    transform: Transform
    count: int
    keep_mib: float = 0.0
    _kept: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def one(self, video: MediaRef, generator: random.Random | None = None) -> Tensor:
        """Frames of one video, shape `(count, 3, height, width)`.

        Args:
            video: The video.
            generator: Draws the frame of each segment; None takes the middle ones.

        Raises:
            CorruptMediaError: If it cannot be decoded; the message names the file.
            InvalidArgumentError: If it is shorter than `count` frames.
        """
        policy: Policy = "middle" if generator is None else "segment_random"
        key = video.place if self.keep_mib else ""
        if key in self._kept:
            return self._kept[key]
        found = decode_frames(video, self.count, policy=policy, generator=generator, shorter="refuse")
        frames = stacked([self.transform(Image.fromarray(frame)) for frame in found.frames])
        size = frames.numel() * frames.element_size()
        if found.available == self.count and (len(self._kept) + 1) * size <= self.keep_mib * 2**20:
            self._kept[key] = frames
        return frames

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `pixel_values`, shape `(batch, count, 3, height, width)`, of records with one video each."""
        return {"pixel_values": torch.stack([self.one(group[0]) for group in images])}

    def drawn(self, images: Images, names: Sequence[str], texts: Sequence[str]) -> dict[str, Tensor]:
        """Return `pixel_values` of random frames, drawn by the name of each record; texts change nothing."""
        pairs = zip(images, generators(names), strict=True)
        return {"pixel_values": torch.stack([self.one(group[0], generator) for group, generator in pairs])}

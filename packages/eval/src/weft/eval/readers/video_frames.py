"""Videos as a processor is shown them: frames that weft decodes, and when each was filmed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data import MediaRef
from weft.data.media.video import decode_frames
from weft.eval.readers.errors import ReaderError

MOST_FRAMES = 768
"""Frames of a video at most, where they are asked for by the second."""


@dataclass(frozen=True)
class Film:
    """Decoded frames of a video.

    Attributes:
        frames: Shape `(frames, height, width, 3)`, uint8, RGB.
        chosen: Number of each among the frames of the video, from 0.
        available: Frames of the video, or of its span.
        rate: Frames a second that the video shows.
    """

    frames: NDArray[np.uint8]
    chosen: tuple[int, ...]
    available: int
    rate: float

    @property
    def metadata(self) -> dict[str, Any]:
        """What processors are told about frames that they did not choose themselves."""
        _, height, width, _ = self.frames.shape
        return {
            "total_num_frames": self.available,
            "fps": self.rate,
            "duration": self.available / self.rate,
            "frames_indices": list(self.chosen),
            "height": height,
            "width": width,
        }

    def grey(self) -> Film:
        """The same film, of which nothing is seen."""
        return replace(self, frames=np.full_like(self.frames, 127))


@dataclass(frozen=True)
class FramesRule:
    """Which frames of a video are shown.

    Args:
        frames: Number of frames, 8 by default: the middle of each of as many equal pieces. A shorter video repeats
            some.
        fps: Frames for each second instead, `MOST_FRAMES` at most.

    Raises:
        ReaderError: If both are given, or one is not above 0.
    """

    frames: int | None = None
    fps: float | None = None

    def __post_init__(self) -> None:
        if self.frames is not None and self.fps is not None:
            raise ReaderError(
                f"`frames` and `fps` must not both be given, but are {self.frames} and {self.fps}. Take one of them."
            )
        for name in ("frames", "fps"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float) or value <= 0):
                raise ReaderError(
                    f"`{name}` must be above 0, but is {value!r}. Give for instance 8 frames, or 2 fps."
                )

    def film(self, part: MediaRef | Film) -> Film:
        """Decode a video; what is decoded already stays as it is.

        Raises:
            CorruptMediaError: If it cannot be decoded; the file is named.
        """
        if isinstance(part, Film):
            return part
        count = MOST_FRAMES if self.fps is not None else (self.frames or 8)
        found = decode_frames(part, int(count), per_second=self.fps)
        return Film(found.frames, found.chosen, found.available, found.rate or 1.0)


def is_video(part: Any) -> bool:
    """Whether a part of a turn is a video."""
    return isinstance(part, Film) or (isinstance(part, MediaRef) and part.kind == "video")


def blank_film(frames: int = 2) -> Film:
    """A small black film, to ask a processor what it does."""
    return Film(np.zeros((frames, 56, 56, 3), np.uint8), tuple(range(frames)), frames, 1.0)

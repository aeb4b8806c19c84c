"""Decode chosen frames of a video with torchcodec, which seeks, and uses the FFmpeg of the system."""

import importlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, InvalidArgumentError, MissingDependencyError
from weft.data.media.reference import MediaRef
from weft.data.sources.limits import check_pixels


class _Times(Sequence[float]):
    """Seconds of the frames, read when they are asked for."""

    def __init__(self, decoder: Any) -> None:
        self._decoder = decoder

    def __len__(self) -> int:
        return len(self._decoder)

    def __getitem__(self, index: Any) -> Any:
        return self._decoder.get_frame_at(index).pts_seconds


def read(
    video: MediaRef, stream: int | None, choose: Callable[[Sequence[float]], list[int]]
) -> NDArray[np.uint8]:
    """Decode frames; arguments are those of `weft.data.media.video_pyav.read`."""
    decoder_class = _import_decoder()
    with ExitStack() as files:

        def decoder(index: int, mode: str) -> Any:
            file = files.enter_context(video.open())
            return decoder_class(file, stream_index=index, seek_mode=mode, dimension_order="NHWC")

        try:
            exact = decoder(_stream(decoder, stream, video.uri), "exact")
            frames: NDArray[np.uint8] = exact.get_frames_at(choose(_Times(exact))).data.numpy()
        except RuntimeError as error:
            reason = str(error).rsplit(", ", 1)[-1]
            raise CorruptMediaError(
                f"{video.uri} must be a whole video, but {reason}. Get the file again."
            ) from error
    return frames


def _stream(decoder: Callable[[int, str], Any], index: int | None, name: str) -> int:
    """Number of a video stream among the streams of all kinds."""
    pixels: dict[int, int] = {}
    for number in count():
        try:
            found = decoder(number, "approximate").metadata
            check_pixels(found.width, found.height, name)
            pixels[number] = found.width * found.height
        except ValueError as error:
            if "not a video stream" not in str(error):
                break
    if not pixels:
        raise CorruptMediaError(f"{name} must hold a video stream, but holds none. Get the file again.")
    if index is None:
        return max(pixels, key=lambda number: pixels[number])
    if not 0 <= index < len(pixels):
        raise InvalidArgumentError(f"`stream` must lie in 0..{len(pixels) - 1} for {name}, but is {index}.")
    return list(pixels)[index]


def _import_decoder() -> Any:
    try:
        return importlib.import_module("torchcodec.decoders").VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:
        raise MissingDependencyError(
            "The backend 'torchcodec' needs torchcodec, in the version that belongs to the installed torch (0.13 to "
            "torch 2.13), and FFmpeg 4 to 8 on the system (apt-get install ffmpeg). Install it with: "
            f"pip install torchcodec. What failed: {str(error).partition(chr(10))[0]}"
        ) from error

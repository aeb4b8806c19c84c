"""Decode chosen frames of a video with PyAV, which brings its own FFmpeg."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, InvalidArgumentError, WeftDataError, needed
from weft.data.media.reference import MediaRef
from weft.data.sources.limits import check_pixels

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,asf,ogg,dv,mxf,rm,nut,wtv,ivf,obu,"
    "h263,h264,hevc,av1,mjpeg,gif,apng,avif,png_pipe,webp_pipe"
)
"""Containers of videos. FFmpeg knows others, such as `concat` and `hls`, that open further files and addresses."""


def read(
    video: MediaRef, stream: int | None, choose: Callable[[list[float]], list[int]]
) -> NDArray[np.uint8]:
    """Decode frames; see `weft.data.media.video.decode_frames`.

    `choose` turns the seconds of all frames into the indices of those that are wanted, in rising order.
    """
    av = needed("av", "Reading videos", "PyAV", "av")
    try:
        with video.open() as file, _opened(av, file) as container:
            chosen = _stream(container, stream, video.uri)
            chosen.thread_type = "AUTO"
            wanted = choose([float(frame.time or 0.0) for frame in container.decode(chosen)])
        return _decode(av, video, stream, wanted)
    except (WeftDataError, ImportError):
        raise
    # Beside FFmpeg's own errors: demuxers pass on the stream's, and PyAV reads names and sizes that are none.
    except Exception as error:
        raise CorruptMediaError(
            f"{video.uri} must be a whole video, but {error}. Get the file again."
        ) from error


def _decode(av: Any, video: MediaRef, stream: int | None, wanted: list[int]) -> NDArray[np.uint8]:
    """Decode once more and keep the frames that were chosen, so that memory holds those alone."""
    needed, found = set(wanted), {}
    with video.open() as file, _opened(av, file) as container:
        for number, frame in enumerate(container.decode(_stream(container, stream, video.uri))):
            if number in needed:
                check_pixels(frame.width, frame.height, video.uri)
                found[number] = _upright(frame)
            if number >= wanted[-1]:
                break
    return np.stack([found[number] for number in wanted])


def _upright(frame: Any) -> NDArray[np.uint8]:
    """The pixels, turned as the file says: phones store what they film upright as if it lay on its side."""
    turned: NDArray[np.uint8] = np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90))
    return turned


def _opened(av: Any, file: Any) -> Any:
    return av.open(file, options={"format_whitelist": _FORMATS})


def _stream(container: Any, index: int | None, name: str) -> Any:
    streams = container.streams.video
    if not streams:
        raise CorruptMediaError(f"{name} must hold a video stream, but holds none. Get the file again.")
    if index is None:
        chosen = max(streams, key=lambda stream: stream.width * stream.height)
    elif 0 <= index < len(streams):
        chosen = streams[index]
    else:
        raise InvalidArgumentError(f"`stream` must lie in 0..{len(streams) - 1} for {name}, but is {index}.")
    check_pixels(chosen.width, chosen.height, name)
    return chosen

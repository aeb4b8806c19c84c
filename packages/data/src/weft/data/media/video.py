"""Frames of a video: which to take, and how to decode them with PyAV (extra `video`)."""

import random
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import (
    CorruptMediaError,
    InvalidArgumentError,
    MissingDependencyError,
    unknown_name,
)
from weft.data.records import MediaRef

Policy = Literal["middle", "random", "segment_random", "head_tail"]
_POLICIES = ("middle", "random", "segment_random", "head_tail")


def frame_indices(
    num_frames: int, count: int, policy: Policy = "middle", generator: random.Random | None = None
) -> list[int]:
    """Choose which frames to show, in rising order.

    - "middle": the middle of each of `count` equal segments; deterministic, for evaluation.
    - "segment_random": one frame at random from each segment, for training.
    - "random": distinct frames at random, as the UniAdapter code does in training and in testing.
    - "head_tail": half from each half of the video.

    A video with fewer frames than asked for repeats frames rather than failing.

    Args:
        num_frames: Frames of the video (or of the span), at least 1.
        count: Frames to choose, at least 1.
        policy: One of the four above.
        generator: Source of randomness; needed except for "middle".

    Raises:
        InvalidArgumentError: If a number is below 1 or the generator is missing.

    >>> frame_indices(100, 4)
    [12, 37, 62, 87]
    """
    if policy not in _POLICIES:
        raise unknown_name("policy", policy, _POLICIES)
    if num_frames < 1 or count < 1:
        raise InvalidArgumentError(
            f"`num_frames` and `count` must be at least 1, but are {num_frames} and {count}."
        )
    if policy == "middle" or num_frames <= count:
        return [min(num_frames - 1, int((k + 0.5) * num_frames / count)) for k in range(count)]
    if generator is None:
        raise InvalidArgumentError(f"`generator` must be given for policy {policy!r}, but is None.")
    if policy == "random":
        return sorted(generator.sample(range(num_frames), count))
    if policy == "head_tail":
        middle = num_frames // 2
        head = min(count // 2, middle)
        return sorted(
            [
                *generator.sample(range(middle), head),
                *generator.sample(range(middle, num_frames), count - head),
            ]
        )
    edges = [k * num_frames // count for k in range(count + 1)]
    return [generator.randrange(edges[k], max(edges[k] + 1, edges[k + 1])) for k in range(count)]


def read_frames(
    video: MediaRef,
    count: int,
    *,
    policy: Policy = "middle",
    generator: random.Random | None = None,
    stream: int | None = None,
) -> NDArray[np.uint8]:
    """Decode frames of a video, within its span if it has one.

    Args:
        video: The video; only frames from `start` to `end` seconds count.
        count: Number of frames.
        policy: See `frame_indices`.
        generator: Source of randomness.
        stream: Index among the video streams; by default the one with the most pixels, since files may hold
            a preview stream first.

    Returns:
        Shape (count, height, width, 3), uint8, RGB.

    Raises:
        MissingDependencyError: If PyAV is not installed.
        CorruptMediaError: If the video cannot be decoded, or has no frame in the span.
        InvalidArgumentError: If there is no such stream.
    """
    av = _import_av()
    try:
        with video.open() as file, av.open(file) as container:
            chosen = _stream(container, stream, video.uri)
            chosen.thread_type = "AUTO"
            times = [float(frame.time or 0.0) for frame in container.decode(chosen)]
            low = video.start if video.start is not None else float("-inf")
            high = video.end if video.end is not None else float("inf")
            inside = [k for k, time in enumerate(times) if low <= time <= high]
            if not inside:
                raise CorruptMediaError(
                    f"{video.uri} must have frames from {video.start} to {video.end} s, but has none among "
                    f"{len(times)}. Check the span in the annotations."
                )
            wanted = [inside[k] for k in frame_indices(len(inside), count, policy, generator)]
        return _decode(av, video, stream, wanted)
    except av.error.FFmpegError as error:
        raise CorruptMediaError(
            f"{video.uri} must be a whole video, but {error}. Get the file again."
        ) from error


def _decode(av: Any, video: MediaRef, stream: int | None, wanted: list[int]) -> NDArray[np.uint8]:
    """Decode once more and keep the frames that were chosen, so that memory holds those alone."""
    needed, found = set(wanted), {}
    with video.open() as file, av.open(file) as container:
        for number, frame in enumerate(container.decode(_stream(container, stream, video.uri))):
            if number in needed:
                found[number] = frame.to_ndarray(format="rgb24")
            if number >= wanted[-1]:
                break
    return np.stack([found[number] for number in wanted])


def _stream(container: Any, index: int | None, name: str) -> Any:
    streams = container.streams.video
    if not streams:
        raise CorruptMediaError(f"{name} must hold a video stream, but holds none. Get the file again.")
    if index is None:
        return max(streams, key=lambda stream: stream.width * stream.height)
    if not 0 <= index < len(streams):
        raise InvalidArgumentError(f"`stream` must lie in 0..{len(streams) - 1} for {name}, but is {index}.")
    return streams[index]


def _import_av() -> Any:
    try:
        import av
    except ImportError:
        raise MissingDependencyError(
            "Reading videos needs PyAV. Install it with: pip install 'weft-data[video]'"
        ) from None
    return av

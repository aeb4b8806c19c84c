"""Frames of a video: which to take, and how to decode them: PyAV (extra `video`) or torchcodec."""

import importlib
import random
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from weft.data.errors import CorruptMediaError, InvalidArgumentError, require_known
from weft.data.media.reference import MediaRef

Backend = Literal["pyav", "torchcodec"]
BACKENDS: tuple[str, ...] = get_args(Backend)
Policy = Literal["middle", "random", "segment_random", "head_tail"]
_HEAD = 32
_TEXT = bytes(range(0x20, 0x7F)) + b"\t\n\r\xef\xbb\xbf"
_POLICIES: tuple[str, ...] = get_args(Policy)


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
    require_known("policy", _POLICIES, policy)
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
        first = generator.sample(range(middle), head)
        return sorted(first + generator.sample(range(middle, num_frames), count - head))
    edges = [k * num_frames // count for k in range(count + 1)]
    return [generator.randrange(edges[k], max(edges[k] + 1, edges[k + 1])) for k in range(count)]


@dataclass(frozen=True)
class Decoded:
    """Frames of a video, and how many there were to choose from.

    Attributes:
        frames: Shape (count, height, width, 3), uint8, RGB.
        available: Frames of the video, or of its span.
        chosen: Number of each frame among those, from 0, rising.
        rate: Frames a second that the video shows; 0 where it has one frame.
    """

    frames: NDArray[np.uint8]
    available: int
    chosen: tuple[int, ...] = ()
    rate: float = 0.0


def read_frames(
    video: MediaRef, count: int, *, stream: int | None = None, backend: Backend = "pyav"
) -> NDArray[np.uint8]:
    """The middle frames of equal segments of a video; see `decode_frames`."""
    return decode_frames(video, count, stream=stream, backend=backend).frames


def decode_frames(
    video: MediaRef,
    count: int,
    *,
    policy: Policy = "middle",
    generator: random.Random | None = None,
    stream: int | None = None,
    backend: Backend = "pyav",
    shorter: Literal["repeat", "refuse"] = "repeat",
    per_second: float | None = None,
) -> Decoded:
    """Decode frames of a video, within its span if it has one.

    Both backends take the same frames. Their pixels may differ by rounding, where their builds of FFmpeg do.

    Args:
        video: The video; only frames from `start` to `end` seconds count.
        count: Number of frames; with `per_second` the greatest number.
        policy: See `frame_indices`.
        generator: Source of randomness.
        stream: Index among the video streams; by default the one with the most pixels, since files may hold
            a preview stream first.
        backend: "pyav" decodes the stream from its start and brings its own FFmpeg; "torchcodec" seeks to the frames
            that are wanted, and needs FFmpeg on the system.
        shorter: What to do with a video of fewer frames than `count`: repeat some, or refuse it.
        per_second: Frames for each second of the video, instead of a number; no frame twice.

    Raises:
        MissingDependencyError: If what the backend needs is not installed.
        CorruptMediaError: If the video cannot be decoded, has no frame in the span or frames of more pixels than
            `WEFT_MAX_IMAGE_PIXELS`, or is a text: FFmpeg would follow a playlist to files elsewhere.
        InvalidArgumentError: If there is no such stream, or the video is shorter and refused.
        UnknownNameError: For an unknown backend.
    """
    require_known("backend", BACKENDS, backend)
    if per_second is not None and per_second <= 0:
        raise InvalidArgumentError(f"`per_second` must be above 0, but is {per_second}. Give for instance 2.")
    _refuse_scripts(video)
    available, chosen, rate = 0, list[int](), 0.0

    def choose(times: Sequence[float]) -> list[int]:
        nonlocal available, chosen, rate
        span = _in_span(video, times)
        available, rate = len(span), _rate([times[number] for number in span])
        wanted = count
        if per_second is not None:
            wanted = max(1, min(count, available, round(available * per_second / rate) if rate else 1))
        elif shorter == "refuse" and available < count:
            raise InvalidArgumentError(
                f"`count` must be at most the frames of {video.uri} ({available}), but is {count}. Show fewer frames, "
                "or leave the video out."
            )
        chosen = frame_indices(available, wanted, policy, generator)
        return [span[index] for index in chosen]

    frames = importlib.import_module(f"weft.data.media.video_{backend}").read(video, stream, choose)
    return Decoded(frames, available, tuple(chosen), rate)


def _rate(times: Sequence[float]) -> float:
    """Frames a second, 0 where one frame tells nothing."""
    shown = times[-1] - times[0]
    return (len(times) - 1) / shown if shown > 0 else 0.0


def _in_span(video: MediaRef, times: Sequence[float]) -> range:
    """Numbers of the frames in the span of a video."""
    first = 0 if video.start is None else bisect_left(times, video.start)
    stop = len(times) if video.end is None else bisect_right(times, video.end)
    if first >= stop:
        raise CorruptMediaError(
            f"{video.uri} must have frames from {video.start} to {video.end} s, but has none among {len(times)}. "
            "Check the span in the annotations."
        )
    return range(first, stop)


def _refuse_scripts(video: MediaRef) -> None:
    with video.open() as file:
        head = file.read(_HEAD)
    if head and not head.translate(None, _TEXT):
        raise CorruptMediaError(
            f"{video.uri} must be a whole video, but is a text, such as a list of other files. Get the video itself."
        )

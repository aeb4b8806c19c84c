import importlib
import io
import random
import struct
import sys

import numpy as np
import pytest

from weft.data import MediaRef
from weft.data.errors import CorruptMediaError, InvalidArgumentError, MissingDependencyError, UnknownNameError
from weft.data.media.video import decode_frames, frame_indices, read_frames
from weft.data.sources.opening import open_store


def need(backend):
    """Skip, saying why, where a backend is not installed whole; torchcodec also loads the FFmpeg of the system."""
    try:
        importlib.import_module({"pyav": "av"}.get(backend, backend))
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"{backend} does not load: {str(error).splitlines()[0]}")
    return backend


@pytest.fixture(params=["pyav", "torchcodec"])
def backend(request):
    return need(request.param)


@pytest.mark.parametrize("policy", ["middle", "random", "segment_random", "head_tail"])
@pytest.mark.parametrize(("frames", "count"), [(100, 8), (9, 8), (8, 8), (3, 8), (1, 4), (7, 1), (3, 2)])
def test_indices_rise_within_the_video(policy, frames, count):
    chosen = frame_indices(frames, count, policy, random.Random(0))
    assert len(chosen) == count
    assert chosen == sorted(chosen)
    assert 0 <= chosen[0] <= chosen[-1] < frames
    if frames >= count:
        assert len(set(chosen)) == count


def test_segments_each_give_one_frame():
    for seed in range(20):
        chosen = frame_indices(80, 8, "segment_random", random.Random(seed))
        assert [index // 10 for index in chosen] == list(range(8))


def test_evaluation_is_deterministic():
    assert frame_indices(80, 8) == frame_indices(80, 8) == [5, 15, 25, 35, 45, 55, 65, 75]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((0, 1), InvalidArgumentError, "must be at least 1, but are 0 and 1"),
        ((9, 2, "random"), InvalidArgumentError, "`generator` must be given for policy 'random'"),
        ((9, 2, "rand"), UnknownNameError, "Unknown policy: 'rand'. Did you mean 'random'"),
    ],
)
def test_impossible_choices_are_refused(arguments, error, message):
    with pytest.raises(error) as caught:
        frame_indices(*arguments)
    assert message in str(caught.value)


def make_video(path, frames=20, sizes=((32, 24),)):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        streams = []
        for width, height in sizes:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            streams.append(stream)
        for number in range(frames):
            for stream in streams:
                pixels = np.full((stream.height, stream.width, 3), number * 10, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in streams:
            container.mux(stream.encode(None))
    return MediaRef(path.name, open_store(path.parent), "video")


def test_chosen_frames_are_decoded(tmp_path, backend):
    video = make_video(tmp_path / "v.mp4")
    frames = read_frames(video, 4, backend=backend)
    assert frames.shape == (4, 24, 32, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), [20, 70, 120, 170], atol=6)


def test_a_span_limits_the_frames(tmp_path, backend):
    video = make_video(tmp_path / "v.mp4")
    part = MediaRef(video.path, video.store, "video", 0.95, 1.45)
    assert read_frames(part, 2, backend=backend).mean(axis=(1, 2, 3)) == pytest.approx([110, 130], abs=14)
    with pytest.raises(CorruptMediaError, match=r"must have frames from 90 to 95 s, but has none among 20"):
        read_frames(MediaRef(video.path, video.store, "video", 90, 95), 2, backend=backend)


def test_the_largest_stream_is_taken_unless_one_is_named(tmp_path, backend):
    video = make_video(tmp_path / "v.mkv", sizes=((32, 24), (64, 48)))
    assert read_frames(video, 1, backend=backend).shape == (1, 48, 64, 3)
    assert read_frames(video, 1, stream=0, backend=backend).shape == (1, 24, 32, 3)
    with pytest.raises(InvalidArgumentError, match=r"`stream` must lie in 0\.\.1"):
        read_frames(video, 1, stream=2, backend=backend)


def test_a_video_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, backend, monkeypatch):
    video = make_video(tmp_path / "v.mp4")
    monkeypatch.setenv("WEFT_MAX_IMAGE_PIXELS", "700")
    with pytest.raises(CorruptMediaError, match=r"v\.mp4 must have at most 700 pixels, but has 32 x 24"):
        read_frames(video, 1, backend=backend)


def test_bytes_that_change_anywhere_in_a_video_are_shown_or_named(tmp_path):
    need("pyav")
    whole = (tmp_path / "v.mp4", make_video(tmp_path / "v.mp4", 4))[0].read_bytes()
    generator = random.Random(0)
    named = 0
    for _ in range(200):
        place = generator.randrange(len(whole))
        data = whole[:place] + generator.randbytes(3) + whole[place + 3 :]
        try:
            read_frames(MediaRef.from_bytes(data, "video"), 2)
        except CorruptMediaError:
            named += 1
    assert named > 10


@pytest.mark.parametrize("content", [b"no video" * 100, b""], ids=["noise", "empty"])
def test_a_broken_video_is_named(tmp_path, backend, content):
    (tmp_path / "v.mp4").write_bytes(content)
    with pytest.raises(CorruptMediaError, match=r"v\.mp4 must be a whole video, but "):
        read_frames(MediaRef("v.mp4", open_store(tmp_path), "video"), 1, backend=backend)


@pytest.mark.parametrize(("module", "backend"), [("av", "pyav"), ("torchcodec.decoders", "torchcodec")])
def test_without_the_backend_the_install_command_is_given(monkeypatch, module, backend):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=r"pip install (av|torchcodec)"):
        read_frames(MediaRef.from_bytes(b"", "v", "video"), 1, backend=backend)


def test_an_unknown_backend_is_refused_with_the_near_one():
    with pytest.raises(UnknownNameError, match=r"Unknown backend: 'torchcodecs'\. Did you mean 'torchcodec'"):
        read_frames(MediaRef.from_bytes(b"", "v", "video"), 1, backend="torchcodecs")


def test_the_real_clip_gives_its_larger_stream(realdata, backend):
    clip = MediaRef("test/resources/nasa_13013.mp4", open_store(realdata / "pytorch+torchcodec"), "video")
    assert read_frames(clip, 8, backend=backend).shape == (8, 270, 480, 3)
    assert read_frames(clip, 2, stream=0, backend=backend).shape == (2, 180, 320, 3)


def test_frames_by_the_second_are_as_many_as_the_span_is_long_and_told_with_their_rate(realdata, backend):
    store = open_store(realdata / "pytorch+torchcodec")
    clip = MediaRef("test/resources/nasa_13013.mp4", store, "video", 3.0, 6.0)
    found = decode_frames(clip, 100, per_second=2.0, backend=backend)
    assert found.frames.shape == (6, 270, 480, 3)
    assert found.available == 90
    assert found.rate == pytest.approx(29.97, abs=0.01)
    assert found.chosen == (7, 22, 37, 52, 67, 82)
    assert len(decode_frames(clip, 4, per_second=2.0, backend=backend).frames) == 4
    assert len(decode_frames(clip, 100, per_second=0.01, backend=backend).frames) == 1
    with pytest.raises(InvalidArgumentError, match=r"`per_second` must be above 0, but is 0"):
        decode_frames(clip, 4, per_second=0, backend=backend)


def test_both_backends_take_the_same_frames_of_the_real_clip(realdata):
    backends = [need("pyav"), need("torchcodec")]
    store = open_store(realdata / "pytorch+torchcodec")
    clip = MediaRef("test/resources/nasa_13013.mp4", store, "video", 3.0, 9.5)
    first, second = (read_frames(clip, 8, backend=backend).astype(int) for backend in backends)
    apart = np.abs(first[:, None] - second[None]).mean(axis=(2, 3, 4))
    assert apart.argmin(axis=1).tolist() == list(range(8))
    # Equal to the last bit with the FFmpeg of PyAV 18.1 and of Debian 12; other builds may round colours otherwise.
    assert apart.diagonal().max() < 0.5


def turned_video(matrix):
    """Frames of four colours in an MP4 file whose header says how to turn them."""
    av = pytest.importorskip("av")
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 32, "yuv420p"
        for _ in range(3):
            for packet in video.encode(av.VideoFrame.from_ndarray(FOUR, format="rgb24")):
                container.mux(packet)
        for packet in video.encode():
            container.mux(packet)
    data = bytearray(stream.getvalue())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", *(int(value) for value in matrix))
    return MediaRef.from_bytes(bytes(data), "v.mp4", "video")


FOUR = np.full((32, 64, 3), 250, np.uint8)
FOUR[:16, :32], FOUR[:16, 32:], FOUR[16:, :32] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
ONE, END = 2**16, 2**30
TURNS = {
    "as it is": ((ONE, 0, 0, 0, ONE, 0, 0, 0, END), 0),
    "right": ((0, ONE, 0, -ONE, 0, 0, 32 * ONE, 0, END), -1),
    "upside down": ((-ONE, 0, 0, 0, -ONE, 0, 64 * ONE, 32 * ONE, END), 2),
    "left": ((0, -ONE, 0, ONE, 0, 0, 0, 64 * ONE, END), 1),
}


@pytest.mark.parametrize(("matrix", "quarters"), TURNS.values(), ids=TURNS)
def test_a_video_stands_as_its_header_says(matrix, quarters, backend):
    frames = read_frames(turned_video(matrix), 2, backend=backend)
    expected = np.rot90(FOUR, quarters)
    assert frames.shape == (2, *expected.shape)
    assert np.median(np.abs(frames[0].astype(int) - expected)) <= 8

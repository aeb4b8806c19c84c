"""Videos as frames: even in testing, drawn within segments in training."""

import random

import numpy as np
import pytest
from transformers import BatchEncoding

from weft.data import MediaRef, Retrieval
from weft.data.errors import CorruptMediaError, InvalidArgumentError
from weft.data.media.transforms import ImageTransform
from weft.data.sources.opening import open_store
from weft.eval.evaluate.frames import Frames
from weft.eval.evaluate.inputs import TextRules
from weft.eval.testing.own_subjects import own_subject, paired_batches

TRANSFORM = ImageTransform(size=16, shape="square", crop=None, mean=(0, 0, 0), std=(1, 1, 1))


@pytest.fixture
def store(tmp_path):
    """A video of 24 frames, each a little brighter than the one before, and a file that is none."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(24):
            image = np.full((32, 32, 3), 10 + 10 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    return open_store(str(tmp_path))


def numbers(pixels):
    """Which frames were shown, by their brightness."""
    return ((pixels.mean(dim=(-1, -2, -3)) * 255 - 10) / 10).round().int().tolist()


def record(store, name="clip.mp4"):
    return Retrieval(
        id=name, media=MediaRef(name, store, "video"), media_id=name, text="a clip", text_id=name
    )


class Tokenizer:
    def __call__(self, texts, **options):
        ones = [[1, 1] for _ in texts]
        return BatchEncoding({"input_ids": ones, "attention_mask": ones})


def test_testing_shows_the_middles_and_training_draws_within_segments(store):
    config = own_subject("weft_dual_encoder").model.config
    batches = paired_batches(config, Tokenizer(), Frames(TRANSFORM, 4), {"t": TextRules()})
    asked = batches.reader.asking([batches.row("t", record(store))])
    assert numbers(asked.inputs["pixel_values"]) == [[3, 9, 15, 21]]

    def drawn(epoch):
        rows = [("t", record(store)), ("t", record(store))]
        return numbers(batches.training(rows, epoch)["batch"].inputs["pixel_values"])[0]

    epochs = [drawn(epoch) for epoch in range(5)]
    assert all([frame // 6 for frame in frames] == [0, 1, 2, 3] for frames in epochs)
    assert len({tuple(frames) for frames in epochs}) > 1
    assert drawn(2) == epochs[2]


def test_a_video_that_cannot_be_decoded_is_named(store):
    with pytest.raises(CorruptMediaError, match=r"broken\.mp4 must be a whole video"):
        Frames(TRANSFORM, 4).one(record(store, "broken.mp4").media)


def test_a_video_shorter_than_its_frames_is_refused(store):
    clip = record(store).media
    assert len(set(numbers(Frames(TRANSFORM, 24).one(clip)[None])[0])) == 24
    with pytest.raises(
        InvalidArgumentError, match=r"at most the frames of .*clip\.mp4 \(24\), but is 25\. Show fewer"
    ):
        Frames(TRANSFORM, 25).one(clip)


def test_videos_that_always_show_the_same_are_decoded_once(store, monkeypatch):
    from weft.eval.evaluate import frames

    decoded = []

    def counted(video, *arguments, **options):
        decoded.append(video.path)
        return decode(video, *arguments, **options)

    decode = frames.decode_frames
    monkeypatch.setattr(frames, "decode_frames", counted)
    media = record(store).media
    every = Frames(TRANSFORM, 24, keep_mib=1.0)
    first = every.one(media, random.Random(0))
    assert every.one(media, random.Random(1)) is first
    assert len(decoded) == 1
    # Fewer frames than there are would be others the next time, and there must be room for what is kept.
    for visual in (
        Frames(TRANSFORM, 4, keep_mib=1.0),
        Frames(TRANSFORM, 24),
        Frames(TRANSFORM, 24, keep_mib=0.05),
    ):
        decoded.clear()
        for seed in range(2):
            visual.one(media, random.Random(seed))
        assert len(decoded) == 2

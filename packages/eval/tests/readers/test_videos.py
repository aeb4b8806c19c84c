"""Videos in chat models: frames that weft decodes, shown by the model's own processor beside pictures and texts."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.utils import is_torchvision_available

from weft.core.testing.processed import tiny
from weft.data import MediaRef, VideoQA
from weft.data.errors import CorruptMediaError
from weft.data.media.video import decode_frames
from weft.data.sources.opening import open_store
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers import ReaderError, Row, Wording, reader_for
from weft.eval.readers.processor import NUMPY_OF_TENSORS
from weft.eval.readers.rows import Turn, ask
from weft.eval.readers.video_frames import Film, FramesRule
from weft.eval.testing import reader_checks as checks
from weft.eval.testing.subject import Subject, picture

SHOWN = ("llava_onevision", "qwen2_5_vl", "qwen3_vl", "internvl")
with_torchvision = pytest.mark.skipif(
    not is_torchvision_available(), reason="transformers reads videos by torchvision"
)


def film(seed: int, size: tuple[int, int] = (60, 40), frames: int = 4) -> Film:
    """Frames of noise, every fifth of twenty."""
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    return Film(noise, tuple(range(2, 5 * frames, 5)), 5 * frames, 10.0)


def rows() -> list[Row]:
    """Rows of two tasks with two videos, one and a picture, a picture alone, a video, and no more than words."""
    shown: list[list[Any]] = [
        [film(0), film(1, (40, 90))],
        [picture(60, 40, 2), film(3)],
        [picture(40, 60, 4)],
        [film(5, (64, 64))],
        [],
    ]
    answers = ("red", "a small blue circle", "three", "a large purple hexagon", "yes")
    return [
        ask(f"what is number {place}?", parts, name=f"row/{place}", task="ab"[place % 2], answer=answer)
        for place, (parts, answer) in enumerate(zip(shown, answers, strict=True))
    ]


def own_inputs(made: Any, asked: Sequence[Row]) -> dict[str, Any]:
    """What the processor itself makes of rows, frames and times given as its documentation says."""
    kinds = [["video" if isinstance(part, Film) else "image" for part in row.pictures] for row in asked]
    prompts = [
        made.processor.apply_chat_template(
            [
                {
                    "role": "user",
                    "content": [*({"type": kind} for kind in own), {"type": "text", "text": row.text}],
                }
            ],
            add_generation_prompt=True,
        )
        for row, own in zip(asked, kinds, strict=True)
    ]
    stills = [[part for part in row.pictures if not isinstance(part, Film)] for row in asked]
    films = [part for row in asked for part in row.pictures if isinstance(part, Film)]
    given: dict[str, Any] = {"images": stills} if any(stills) else {}
    if films:
        given |= {
            "videos": [own.frames for own in films],
            "video_metadata": [
                {
                    "total_num_frames": 20,
                    "fps": 10.0,
                    "duration": 2.0,
                    "frames_indices": [2, 7, 12, 17],
                    "height": own.frames.shape[1],
                    "width": own.frames.shape[2],
                }
                for own in films
            ],
            "do_sample_frames": False,
        }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=NUMPY_OF_TENSORS, category=DeprecationWarning)
        inputs = dict(made.processor(text=prompts, padding=True, return_tensors="pt", **given))
    inputs.pop("video_metadata", None)
    return inputs


@pytest.fixture(params=SHOWN)
def subject(request: pytest.FixtureRequest) -> Subject:
    made = tiny(request.param)
    return Subject(
        title=request.param,
        model=made.model,
        processor=made.processor,
        own_inputs=lambda asked: own_inputs(made, asked),
        rows=rows(),
    )


@with_torchvision
@pytest.mark.parametrize(
    "check",
    [checks.check_pictures, checks.check_alone, checks.check_padding, checks.check_mixed, checks.check_write],
    ids=lambda check: check.__name__,
)
def test_rows_with_videos_hold_what_the_contract_asks(subject: Subject, check: Any) -> None:
    check(subject)


@with_torchvision
def test_every_video_belongs_to_the_row_that_shows_it(subject: Subject) -> None:
    batch = subject.reader.training(subject.rows)
    assert batch.owners["images"].tolist() == [1, 2]
    assert batch.owners["videos"].tolist() == [0, 0, 1, 3]
    if "tiles" in batch.owners and "pixel_values_videos" not in batch.inputs:  # frames among the pictures
        assert batch.owners["tiles"].bincount(minlength=5)[[0, 3, 4]].tolist() == [8, 4, 0]


@with_torchvision
def test_frames_of_a_real_clip_are_shown_with_their_times(realdata: Path) -> None:
    clip = MediaRef(
        "test/resources/nasa_13013.mp4", open_store(realdata / "pytorch+torchcodec"), "video", 3.0, 5.0
    )
    made = tiny("qwen3_vl")
    reader = reader_for(made.model.config, made.processor)
    shown = reader.showing(FramesRule(fps=2.0)).asking([ask("what?", [clip])])
    said = made.processor.tokenizer.decode(shown.inputs["input_ids"][0])
    # Four frames in two seconds, the middles of their halves; two are seen as one, at the time between them.
    assert said.count("seconds>") == 2
    assert "<0.5 seconds>" in said
    assert "<1.5 seconds>" in said
    assert shown.inputs["video_grid_thw"][0, 0] == 2
    eight = reader.asking([ask("what?", [clip])])
    assert eight.inputs["video_grid_thw"][0, 0] == 4
    _, width, height, _ = decode_frames(clip, 8).frames.shape
    assert {width, height} == {270, 480}


@with_torchvision
def test_records_with_videos_are_worded_trained_on_and_answered(realdata: Path) -> None:
    store = open_store(realdata / "pytorch+torchcodec")
    spans = [(0.0, 2.0), (4.0, 6.0), (8.0, 12.0)]
    records = [
        VideoQA(
            id=str(k),
            media_id="nasa",
            question="what is seen?",
            video=MediaRef("test/resources/nasa_13013.mp4", store, "video", *span),
            answers=("ice",),
        )
        for k, span in enumerate(spans)
    ]
    made = tiny("qwen2_5_vl")
    reader = reader_for(made.model.config, made.processor).showing(FramesRule(frames=2))
    wording = Wording("See {video} and say {question}")
    seen = ReaderBatches(reader, {"t": TextRules(max_new_tokens=3)}, {"t": wording})
    for record in records:
        seen.reader.check(seen.row("t", record))
    batch = seen.training([("t", record) for record in records])["batch"]
    said = made.processor.tokenizer.decode(batch.inputs["input_ids"][0])
    assert "See <|vision_start|>" in said
    assert "and say what is seen?" in said
    assert len(seen.answers(made.model, "t", records, "cpu")) == 3
    blind = ReaderBatches(reader, {"t": TextRules()}, {"t": wording}, blank=True)
    grey = blind.training([("t", record) for record in records])["batch"].inputs["pixel_values_videos"]
    shape = batch.inputs["pixel_values_videos"].shape
    assert grey.shape == shape
    assert len(grey.view(len(grey), 3, -1).unique()) == 3


@with_torchvision
@pytest.mark.parametrize("name", ["llava_onevision", "internvl"])
def test_frames_by_the_second_are_refused_where_all_videos_must_have_as_many(name: str) -> None:
    made = tiny(name)
    with pytest.raises(ReaderError, match=r"`fps` must be left out .* equally many frames of every video"):
        reader_for(made.model.config, made.processor).showing(FramesRule(fps=1.0))


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("llava", "its processor takes none"),
        (
            "smolvlm",
            "its processor puts frames where|marks none by a token|does not show one beside a picture",
        ),
        ("paligemma", "which this model is not shown"),
        ("florence2", "which this model is not shown"),
        ("clip", "which this model is not shown"),
    ],
)
def test_videos_are_refused_by_models_that_are_shown_none(name: str, fault: str) -> None:
    made = tiny(name)
    reader = reader_for(made.model.config, made.processor)
    row = ask("what?", [film(0)], name="vqa/7", answer="red")
    for read in (reader.check, lambda row: reader.training([row, row])):
        with pytest.raises(ReaderError, match=rf"vqa/7 has a video.*({fault})"):
            read(row)
    with pytest.raises(ReaderError, match="`frames` and `fps` must be left out"):
        reader.showing(FramesRule(frames=4))


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_videos_without_the_library_that_reads_them_are_refused_with_its_name() -> None:
    made = tiny("qwen2_5_vl")
    with pytest.raises(
        ReaderError, match=r"is not shown: .*need torchvision, .* Run `pip install torchvision`"
    ):
        reader_for(made.model.config, made.processor).check(ask("what?", [film(0)]))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"frames": 2, "fps": 1.0}, "must not both be given, but are 2 and 1.0"),
        ({"frames": 0}, "`frames` must be above 0, but is 0"),
        ({"fps": "two"}, "`fps` must be above 0, but is 'two'"),
    ],
)
def test_frames_that_cannot_be_taken_are_refused(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(ReaderError, match=message):
        FramesRule(**rule)


@with_torchvision
def test_a_mark_of_a_video_in_a_text_is_refused_and_a_damaged_video_named(tmp_path: Path) -> None:
    made = tiny("qwen2_5_vl")
    reader = reader_for(made.model.config, made.processor)
    with pytest.raises(ReaderError, match=r"the videos of a row must agree .* row has 1 for 2"):
        reader.check(Row("row", "", (Turn("user", (film(0), "what is <|video_pad|>?")),)))
    (tmp_path / "v.mp4").write_bytes(b"\0" * 200)
    with pytest.raises(CorruptMediaError, match=r"v\.mp4"):
        reader.asking([ask("what?", [MediaRef("v.mp4", open_store(tmp_path), "video")])])

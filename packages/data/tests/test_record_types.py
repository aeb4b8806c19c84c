"""A record type says all of itself: media, right answers, groups, and how columns and shards hold it."""

import json
from dataclasses import dataclass
from typing import ClassVar

import pytest

from weft.data import (
    Caption,
    Classify,
    ImageQA,
    InvalidArgumentError,
    MediaRef,
    PairBool,
    Record,
    RecordSet,
    Retrieval,
    UnknownNameError,
    VideoMC,
    VideoQA,
    load_dataset,
    record_class,
    register_record_type,
)
from weft.data.records import record as registry
from weft.data.shards.convert import convert
from weft.data.testing import image_bytes, write_tree

IMAGE = MediaRef.from_bytes(image_bytes())
FILM = MediaRef.from_bytes(b"", kind="video")
PICTURE = {"image": IMAGE, "image_id": "p"}


@pytest.fixture
def grounded(monkeypatch):
    """A type from outside: where in a picture a phrase is, with a picture to compare and its scores."""
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))

    @register_record_type
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Grounded(Record):
        record_type: ClassVar[str] = "grounded"
        image: MediaRef
        others: tuple[MediaRef, ...]
        phrase: str
        words: tuple[str, ...]
        share: float
        box: tuple[float, ...] = ()

        def references(self):
            return self.words

        def groups(self):
            return {"length": "short" if len(self.phrase) < 5 else "long"}

    return Grounded


@pytest.mark.parametrize(
    ("record", "right"),
    [
        (ImageQA(id="1", **PICTURE, question="?", answers=("red", "blue")), ("red", "blue")),
        (ImageQA(id="1", **PICTURE, question="?"), ()),
        (PairBool(id="1", images=(IMAGE, IMAGE), group_id="g", sentence="s", label=False), ("false",)),
        (PairBool(id="1", images=(IMAGE,), group_id="g", sentence="s"), ()),
        (Caption(id="1", media=IMAGE, media_id="p", captions=("a cat", "a pet")), ("a cat", "a pet")),
        (Retrieval(id="1", media=IMAGE, media_id="p", text="a cat", text_id="t"), ("t",)),
        (Classify(id="1", image=IMAGE, label=0, class_name="cat"), ("cat",)),
        (VideoMC(id="1", video=FILM, media_id="v", question="?", options=("a", "b"), answer=1), ("a1",)),
        (VideoMC(id="1", video=FILM, media_id="v", question="?", options=("a", "b")), ()),
        (VideoQA(id="1", video=FILM, media_id="v", question="?", answers=("red",)), ("red",)),
    ],
    ids=lambda value: value.record_type if isinstance(value, Record) else str(len(value)),
)
def test_a_record_says_what_it_shows_and_what_is_right(record, right):
    assert record.references() == right
    assert len(record.media_refs()) == (2 if len(getattr(record, "images", ())) == 2 else 1)
    assert record_class(record.record_type) is type(record)


def test_a_record_says_which_groups_it_counts_in():
    asked = {"question_type": "what", "extra": {"template": "t", "novel": True, "tones": []}}
    record = ImageQA(id="1", **PICTURE, question="?", **asked)
    assert list(record.groups().items()) == [
        ("question_type", "what"),
        ("combination", "novel"),
        ("skin_tone", "plain"),
    ]
    assert Record(id="1", extra={"template": "t"}).groups() == {"question_type": "t"}
    assert Record(id="1").groups() == {}


def test_a_type_from_outside_is_read_from_columns(grounded, tmp_path):
    row = {
        "image": "a.png",
        "others": ["b.png", "c.png"],
        "phrase": "it",
        "words": ["cat"],
        "share": 0.5,
        "box": [1, 2],
    }
    files = {"train.jsonl": json.dumps(row) + "\n", **{f"{name}.png": image_bytes() for name in "abc"}}
    (record,) = load_dataset("table", write_tree(tmp_path, files), record="grounded", columns={})
    assert isinstance(record, grounded)
    assert [ref.path for ref in record.media_refs()] == ["a.png", "b.png", "c.png"]
    assert (record.phrase, record.references(), record.share) == ("it", ("cat",), 0.5)
    assert record.groups() == {"length": "short"}


@pytest.mark.parametrize("others", [0, 2])
def test_a_type_from_outside_lies_in_shards(grounded, tmp_path, others):
    record = grounded(
        id="1", image=IMAGE, others=(IMAGE,) * others, phrase="it", words=("cat",), share=0.5, box=(1.0,)
    )
    back = convert(RecordSet("s", "train", "grounded", [record]), tmp_path / "out")[0]
    assert back.without_media() == record.without_media()
    assert [ref.read() for ref in back.media_refs()] == [image_bytes()] * (1 + others)


def test_a_name_is_one_type(grounded):
    with pytest.raises(InvalidArgumentError, match="`record_type` must be unique, but 'caption' is taken"):
        register_record_type(type("Other", (Record,), {"record_type": "caption"}))
    with pytest.raises(UnknownNameError, match=r"Unknown record type: 'groundet'. Did you mean 'grounded'"):
        record_class("groundet")

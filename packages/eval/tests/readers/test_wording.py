"""How tasks word their records."""

from __future__ import annotations

from typing import Any

import pytest

from weft.data import Caption, ImageQA, MediaRef, PairBool, VideoMC
from weft.data.testing import image_bytes
from weft.eval.readers import ReaderError, Wording, ask
from weft.eval.readers.rows import decoded
from weft.eval.readers.wording import word_fields

IMAGE = MediaRef.from_bytes(image_bytes())
QUESTION = ImageQA(id="7", image=IMAGE, image_id="1", question="what {is} it?", answers=("red",))
PAIR = PairBool(id="3", images=(IMAGE, IMAGE), group_id="g", sentence="both are red", label=True)


def parts(record: Any, **words: Any) -> list[Any]:
    row = Wording(**words).row(record, "task", "the text", "red", 0.5)
    return ["picture" if not isinstance(part, str) else part for part in row.turns[-1].parts]


def test_words_in_braces_are_the_records_fields() -> None:
    assert parts(QUESTION, ask="{question} Answer with one word.") == [
        "picture",
        "what {is} it? Answer with one word.",
    ]
    assert parts(QUESTION) == ["picture", "the text"]
    assert parts(QUESTION, ask="{{{text}}}") == ["picture", "{the text}"]
    options = VideoMC(id="1", video=IMAGE, media_id="v", question="which?", options=("a", "b"), answer=1)
    assert parts(options, ask="{question} {options}")[-1] == "which? a, b"


def test_pictures_come_first_or_where_they_are_placed() -> None:
    assert parts(PAIR, ask="{sentence}?") == ["picture", "picture", "both are red?"]
    assert parts(PAIR, ask="left: {image} right: {image} {sentence}?") == [
        "left: ",
        "picture",
        " right: ",
        "picture",
        " both are red?",
    ]
    with pytest.raises(ReaderError, match=r"one {image} for each picture, but task/3 has 2 for 1"):
        parts(PAIR, ask="{image} {sentence}")


def test_a_system_text_is_a_turn_of_its_own() -> None:
    row = Wording(ask="{question}", system="be short").row(QUESTION, "vqa", "", "red", 0.5)
    assert [(turn.role, turn.text) for turn in row.turns] == [
        ("system", "be short"),
        ("user", "what {is} it?"),
    ]
    assert (row.name, row.task, row.answer, row.weight) == ("vqa/7", "vqa", "red", 0.5)


def test_unknown_words_are_refused_with_near_matches_before_any_record_is_read() -> None:
    with pytest.raises(ReaderError, match=r"a word of `ask` must be .* 'qestion'. Did you mean 'question'"):
        Wording(ask="{qestion}").check(ImageQA)
    with pytest.raises(ReaderError, match="a word of `system` must be"):
        Wording(system="{where}").check(ImageQA)
    Wording(ask="{question} {source}").check(ImageQA, ["source"])


def test_what_is_asked_for_cannot_be_told() -> None:
    with pytest.raises(ReaderError, match=r"must not tell what is asked for, but says {answers}"):
        Wording(ask="{answers}").check(ImageQA)
    assert word_fields(Caption) == ("id", "media_id", "language", "subtitles")


def test_braces_that_do_not_match_are_refused_at_once() -> None:
    for wording in ("{question", "{question!r}", "{question:>4}"):
        with pytest.raises(ReaderError, match="`ask` must hold words in braces"):
            Wording(ask=wording)


def test_only_pictures_and_texts_are_read() -> None:
    assert [image.mode for image in decoded(ask("what?", [IMAGE, IMAGE.image().convert("L")]))] == [
        "RGB",
        "RGB",
    ]
    film = MediaRef.from_bytes(b"", "film", "video")
    for wrong, name in ((film, "a video"), (3, "a int")):
        with pytest.raises(ReaderError, match=f"texts and pictures, but row has {name}"):
            decoded(ask("what?", [wrong]))

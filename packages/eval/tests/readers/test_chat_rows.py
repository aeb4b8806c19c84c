"""Rows of chat models: several pictures, pictures between words, none, several turns; and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from weft.core.testing.processed import tiny
from weft.eval.readers import Limits, ReaderError, Row, Turn, Writing, ask, reader_for
from weft.eval.testing import picture

CHAT = ("llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm", "gemma3", "internvl")
A, B, C, D = picture(60, 40, 1), picture(64, 64, 2), picture(40, 60, 3), picture(96, 48, 4)
SEVERAL = Row("several", "a", (Turn("user", (A, B, "what differs?")),), "red")
NONE = Row("none", "b", (Turn("user", ("how many?",)),), "three")
BETWEEN = Row(
    "between",
    "a",
    (Turn("system", ("be short",)), Turn("user", ("left ", C, " and right ", D, ": the same?"))),
    "no",
)
TURNS = Row(
    "turns",
    "b",
    (
        Turn("user", (A, "what colour?")),
        Turn("assistant", ("red",)),
        Turn("user", ("what shape?",)),
        Turn("assistant", ("a star",)),
        Turn("user", ("how many?",)),
    ),
    "two",
)
ALL = replace(TURNS, name="all", learn="all")
ROWS = [SEVERAL, NONE, BETWEEN, TURNS, ALL]
ROW = ask("what colour?", [A], name="vqa/7", task="vqa", answer="red")


@pytest.fixture(params=CHAT)
def made(request: Any) -> Any:
    return tiny(request.param)


@pytest.fixture
def read(made: Any) -> Any:
    return reader_for(made.model.config, made.processor)


def sums(read: Any, made: Any, rows: list[Row]) -> torch.Tensor:
    with torch.no_grad():
        return read.losses(made.model, read.training(rows)).sums


def test_a_reader_keeps_no_pixels_of_what_it_tries(read: Any) -> None:
    assert isinstance(read.sees_alone, bool)
    read.training([SEVERAL])
    kept = [
        value
        for held in vars(read).values()
        for value in (held.values() if isinstance(held, dict) else [held])
    ]
    assert not any(isinstance(value, torch.Tensor) for value in kept)


def test_rows_of_every_form_stand_in_one_batch_as_they_stand_alone(made: Any, read: Any) -> None:
    alone = torch.cat([sums(read, made, [row]) for row in ROWS])
    torch.testing.assert_close(sums(read, made, ROWS), alone, rtol=1e-6, atol=0)
    writing = Writing(max_new_tokens=4)
    together = read.write(made.model, read.asking(ROWS), writing)
    assert together == [read.write(made.model, read.asking([row]), writing)[0] for row in ROWS]


def test_pictures_between_words_are_read_where_they_stand(made: Any, read: Any) -> None:
    parts = BETWEEN.turns[-1].parts
    moved = replace(BETWEEN, turns=(Turn("user", (parts[1], parts[3], parts[0] + parts[2] + parts[4])),))
    turned = replace(BETWEEN, turns=(Turn("user", (*parts[:1], D, parts[2], C, parts[4])),))
    found = [sums(read, made, [replace(BETWEEN, turns=BETWEEN.turns[1:])])[0]]
    found += [sums(read, made, [row])[0] for row in (moved, turned)]
    # The first template here writes pictures first, wherever they stand.
    assert len({round(float(value), 4) for value in found}) == (2 if made.name == "llava" else 3)


def test_all_answers_are_learned_where_asked_for_else_the_last(made: Any, read: Any) -> None:
    batch, tokenizer = read.training([TURNS, ALL]), made.processor.tokenizer
    said = [tokenizer.decode(ids[ids != -100], skip_special_tokens=True).split() for ids in batch.labels]
    assert "".join(said[0]) == "two"
    assert "".join(said[1]) == "redastartwo"


# LLaVA's tokenizer merges the blank of a prompt into earlier answers that are read, not into those that are learned.
@pytest.mark.parametrize("name", CHAT[1:])
def test_learning_all_answers_is_learning_each_of_them(name: str) -> None:
    made = tiny(name)
    read = reader_for(made.model.config, made.processor)
    each = [
        replace(TURNS, turns=TURNS.turns[:1], answer="red"),
        replace(TURNS, turns=TURNS.turns[:3], answer="a star"),
        TURNS,
    ]
    apart = sum(float(sums(read, made, [row])[0]) for row in each)
    assert float(sums(read, made, [ALL])[0]) == pytest.approx(apart, rel=1e-6)


def test_every_picture_belongs_to_the_row_that_shows_it_however_many_there_are(made: Any, read: Any) -> None:
    # As many pictures as rows: whether a tensor counts rows or pictures must not be guessed.
    batch = read.training([SEVERAL, NONE, ROW])
    owners, pixels = batch.owners, batch.inputs["pixel_values"]
    assert owners["images"].tolist() == [0, 0, 2]
    if "image_grid_thw" in batch.inputs:
        patches = batch.inputs["image_grid_thw"].prod(1).tolist()
        assert owners["pixel_values"].tolist() == [0] * sum(patches[:2]) + [2] * patches[2]
    elif made.name in ("smolvlm", "internvl"):
        assert len(owners["pixel_values"]) == len(pixels)
    else:
        assert owners["pixel_values"].tolist() == [0, 0, 2]
    if made.name == "smolvlm":
        assert owners["pixel_values"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["llava", "llava_onevision", "smolvlm", "gemma3", "internvl"])
def test_every_tile_that_the_tower_sees_belongs_to_the_row_that_shows_it(name: str) -> None:
    made, rows = tiny(name), [SEVERAL, NONE, ROW]
    read = reader_for(made.model.config, made.processor)
    batch, seen = read.training(rows), []
    inner = made.model.model
    tower = inner.vision_model if name == "smolvlm" else inner.vision_tower

    def note(module: Any, given: Any, named: Any) -> None:
        seen.append(named["pixel_values"] if "pixel_values" in named else given[0])

    hook = tower.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            read.losses(made.model, batch)
            for row in (SEVERAL, ROW):
                read.losses(made.model, read.training([row]))
    finally:
        hook.remove()
    whole, first, last = seen
    owners = batch.owners["tiles"]
    assert len(owners) == len(whole)
    assert torch.equal(whole[owners == 0], first)
    assert torch.equal(whole[owners == 2], last)
    assert not (owners == 1).any()


def test_the_head_is_computed_where_answers_are_and_nowhere_else(made: Any, read: Any) -> None:
    batch, seen = read.training([NONE, ROW]), []
    head = made.model.get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[1]))
    try:
        with torch.no_grad():
            read.losses(made.model, batch)
    finally:
        hook.remove()
    longest = int((batch.labels != -100).sum(1).max())
    assert seen == [longest]
    assert batch.inputs["input_ids"].shape[1] > longest


def test_a_text_with_the_mark_of_a_picture_is_refused_with_its_row(made: Any, read: Any) -> None:
    marks = {"gemma3": "<start_of_image>", "internvl": "<IMG_CONTEXT>"}
    mark = marks.get(made.name, "<|image_pad|>" if made.name.startswith("qwen") else "<image>")
    with pytest.raises(ReaderError, match="vqa/9 has 1 for 2"):
        read.training([ROW, ask(f"what is {mark}?", [A], name="vqa/9", answer="red")])


def test_an_empty_answer_and_an_empty_batch_are_refused(made: Any, read: Any) -> None:
    with pytest.raises(ReaderError, match=r"a word to learn .* 1 of 2 are empty, such as that of vqa/8"):
        read.training([ROW, replace(ROW, name="vqa/8", answer=" ")])
    with pytest.raises(ReaderError, match="at least one row"):
        read.training([])


def test_rows_that_are_too_long_are_refused_or_dropped_and_named(made: Any) -> None:
    length = int(reader_for(made.model.config, made.processor).training([ROW]).inputs["input_ids"].shape[1])
    long = replace(ROW, name="vqa/8", answer="a large purple hexagon beside a small blue circle")
    refusing = reader_for(made.model.config, made.processor, limits=Limits(tokens=length))
    assert len(refusing.training([ROW])) == 1
    with pytest.raises(ReaderError, match=rf"`tokens` must be at least .* but is {length}, and vqa/8 has"):
        refusing.training([ROW, long])
    dropping = reader_for(made.model.config, made.processor, limits=Limits(tokens=length, too_long="drop"))
    batch = dropping.training([long, ROW, long])
    assert (batch.names, batch.left_out) == (["vqa/7"], ("vqa/8", "vqa/8"))
    assert torch.equal(batch.inputs["pixel_values"], refusing.training([ROW]).inputs["pixel_values"])
    with pytest.raises(ReaderError, match="all of its rows are too long"):
        dropping.training([long])
    answers = reader_for(made.model.config, made.processor, limits=Limits(answer_tokens=6))
    with pytest.raises(ReaderError, match=r"`answer_tokens` must be .* is 6, and vqa/8 has"):
        answers.training([ROW, long])

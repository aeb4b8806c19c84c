"""Conversations as readers read them: turns by the template, and the answers that are learned."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from PIL import Image

from weft.core.testing.processed import tiny
from weft.data import Conversation, MediaRef
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers import ReaderError, Wording, reader_for
from weft.eval.readers.preview import preview

CHAT = ("llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl", "smolvlm", "gemma3", "internvl")


def image(size: tuple[int, int], color: int) -> MediaRef:
    stream = io.BytesIO()
    Image.new("RGB", size, (color, 90, 200 - color)).save(stream, "PNG")
    return MediaRef.from_bytes(stream.getvalue(), f"{color}.png")


WIDE, TALL = image((96, 48), 20), image((40, 60), 180)
USER, ASSISTANT = "user", "assistant"
SEVERAL = Conversation(
    id="several",
    roles=("system", USER, ASSISTANT, USER, ASSISTANT, USER, ASSISTANT),
    parts=(
        ("be short",),
        ("left ", None, " and right ", None, ": what colour?"),
        ("red",),
        ("what shape?",),
        ("a star",),
        ("how many?",),
        ("two",),
    ),
    images=(WIDE, TALL),
    learned=(2, 4, 6),
)
# The answers of a prompt are read, not learned.
PROMPT = Conversation(
    id="prompt",
    roles=SEVERAL.roles[1:],
    parts=SEVERAL.parts[1:],
    images=SEVERAL.images,
    learned=(3, 5),
)
WORDS = Conversation(id="words", roles=(USER, ASSISTANT), parts=(("how many?",), ("three",)), learned=(1,))
ONE = Conversation(
    id="one", roles=(USER, ASSISTANT), parts=((None, "what?"), ("no",)), images=(TALL,), learned=(1,)
)
LATER = Conversation(
    id="later",
    roles=(USER, ASSISTANT) * 2,
    parts=(("what?",), ("red",), (None, "and here?"), ("two",)),
    images=(WIDE,),
    learned=(1, 3),
)
RECORDS = (SEVERAL, WORDS, ONE, PROMPT)


def batches(name: str, **words: Any) -> tuple[Any, ReaderBatches]:
    made = tiny(name)
    reader = reader_for(made.model.config, made.processor)
    return made, ReaderBatches(reader, {"talk": TextRules()}, {"talk": Wording(**words)})


def learned(made: Any, labels: torch.Tensor) -> str:
    return "".join(made.processor.tokenizer.decode(labels[labels != -100], skip_special_tokens=True).split())


@pytest.mark.parametrize("name", CHAT)
@pytest.mark.parametrize(
    ("learn", "answers"),
    [("last", ["two", "three", "no", "two"]), ("all", ["redastartwo", "three", "no", "astartwo"])],
)
def test_the_answers_asked_for_are_learned_with_their_ends_and_nothing_else(
    name: str, learn: Any, answers: list[str]
) -> None:
    made, prepared = batches(name, learn=learn)
    batch = prepared.training([("talk", record) for record in RECORDS])["batch"]
    assert [learned(made, labels) for labels in batch.labels] == answers
    # The last answer ends every row; where all are learned, each earlier one has the same end.
    end = prepared.reader._answer("")[-1]
    ends = [int((labels == end).sum()) for labels in batch.labels]
    assert ends == ([1, 1, 1, 1] if learn == "last" else [3, 1, 1, 2])
    assert batch.owners["images"].tolist() == [0, 0, 2, 3, 3]
    with torch.no_grad():
        together = prepared.reader.losses(made.model, batch).sums
        alone = [
            prepared.reader.losses(made.model, prepared.training([("talk", record)])["batch"]).sums
            for record in RECORDS
        ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=0)


def test_turns_are_read_as_the_template_writes_them() -> None:
    made, prepared = batches("qwen2_5_vl", system="for all")
    shown = preview(prepared.reader, prepared.row("talk", SEVERAL, 0))
    assert shown.learned[-1] == "<|im_end|>" or "<|im_end|>" in "".join(shown.learned)
    turns = [
        {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "x"}]},
    ]
    assert made.processor.apply_chat_template(turns, tokenize=False).count("<|vision_start|>") == 2
    assert "be short" in shown.prompt
    assert "for all" not in shown.prompt
    assert shown.prompt.index("left") < shown.prompt.index("right") < shown.prompt.index("a star")
    assert "for all" in preview(prepared.reader, prepared.row("talk", ONE, 0)).prompt


def test_answers_are_asked_for_without_the_last() -> None:
    made, prepared = batches("llava")
    hidden = Conversation(id="hidden", roles=(USER,), parts=((None, "what?"),), images=(TALL,))
    said = prepared.answers(made.model, "talk", [SEVERAL, WORDS, hidden, ONE])
    assert len(said) == 4
    assert said[2] == said[3]
    assert prepared.row("talk", SEVERAL).turns[-1].text == "how many?"
    assert kind_of([SEVERAL]).text(WORDS) == "how many?"
    assert prepared.row("talk", hidden, 0).weight == 0


@pytest.mark.parametrize("name", ["paligemma", "blip_vqa", "florence2"])
def test_models_without_a_template_take_one_turn_and_refuse_several(name: str) -> None:
    _, prepared = batches(name, learn="all")
    assert len(prepared.training([("talk", ONE)])["batch"]) == 1
    prepared.reader.check(prepared.row("talk", ONE))
    later = Conversation(
        id="later",
        roles=(USER, ASSISTANT) * 2,
        parts=((None, "what?"), ("red",), ("how many?",), ("two",)),
        images=(TALL,),
        learned=(1, 3),
    )
    message = "must be one question .* but talk/later has earlier answers. Give a row .* with a chat template"
    with pytest.raises(ReaderError, match=message):
        prepared.reader.check(prepared.row("talk", later))
    with pytest.raises(ReaderError, match=message):
        prepared.training([("talk", later)])


@pytest.mark.parametrize("name", [*(name for name in CHAT if name != "llava_onevision"), "mllama"])
def test_every_answer_is_learned_as_generation_sees_it_where_images_come_later(name: str) -> None:
    made, prepared = batches(name, learn="all")
    # Of letters that no tokenizer here merges with a blank before them.
    first = ("what?",) if name != "mllama" else (None, "what?")
    records = [
        replace(
            LATER,
            parts=(first, ("ZQ",), (None, "and here?"), ("QX",)),
            images=(WIDE,) * first.count(None) + (TALL,),
        ),
        Conversation(
            id="both",
            roles=(USER, ASSISTANT) * 3,
            parts=(
                (None, "what?"),
                ("QZ",),
                ("and ", None, "or ", None),
                ("XX",),
                ("how many?", None),
                ("ZZ",),
            ),
            images=(WIDE, TALL, WIDE, TALL),
            learned=(1, 3, 5),
        ),
    ]
    batch = prepared.training([("talk", record) for record in records])["batch"]
    assert [learned(made, labels) for labels in batch.labels] == ["ZQQX", "QZXXZZ"]
    assert batch.owners["images"].tolist()[-4:] == [1, 1, 1, 1]
    _, single = batches(name)
    with torch.no_grad():
        together = prepared.reader.losses(made.model, batch)
        for row, record in enumerate(records):
            apart = [
                prepared.reader.losses(made.model, single.training([("talk", said)])["batch"])
                for said in (upto(record, place) for place in record.learned)
            ]
            assert int(together.counts[row]) == sum(int(losses.counts[0]) for losses in apart)
            torch.testing.assert_close(
                together.sums[row], sum(losses.sums[0] for losses in apart), rtol=1e-6, atol=0
            )


def upto(record: Conversation, place: int) -> Conversation:
    """A conversation that ends with one of its answers."""
    parts = record.parts[: place + 1]
    shown = sum(part is None for said in parts for part in said)
    return Conversation(
        id=record.id,
        roles=record.roles[: place + 1],
        parts=parts,
        images=record.images[:shown],
        learned=(place,),
    )


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("llava_onevision", "shows a picture otherwise where another follows"),
        ("mllama", "looks at pictures before they come"),
    ],
)
def test_later_images_are_refused_before_training_where_earlier_answers_would_see_them(
    name: str, fault: str
) -> None:
    _, prepared = batches(name, learn="all")
    with pytest.raises(
        ReaderError,
        match=f"every picture comes before the first answer, but talk/later shows 1 later, and this model {fault}",
    ):
        prepared.reader.check(prepared.row("talk", LATER))
    assert len(batches(name)[1].training([("talk", LATER)])["batch"]) == 1


def test_a_row_without_pictures_is_read_and_answered_as_alone_where_pictures_stand_beside_the_text() -> None:
    made, prepared = batches("mllama")
    try:
        made.processor(images=[[WIDE.image()], []], text=["<|image|>a", "b"], padding=True)
    except ValueError as error:
        if "there should be either no images or at least one image per sample" not in str(error):
            raise
        pytest.skip(f"transformers {transformers.__version__} does not read them together: {error}")
    rows = [("talk", record) for record in RECORDS]
    with torch.no_grad():
        together = prepared.reader.losses(made.model, prepared.training(rows)["batch"]).sums
        alone = [prepared.reader.losses(made.model, prepared.training([row])["batch"]).sums for row in rows]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-6, atol=0)
    assert prepared.answers(made.model, "talk", RECORDS) == [
        prepared.answers(made.model, "talk", [record])[0] for record in RECORDS
    ]


def test_ask_and_prompt_are_refused_for_conversations() -> None:
    with pytest.raises(ReaderError, match=r"`ask` must be left out of conversations, .* but is '{text}\?'"):
        Wording(ask="{text}?").check(Conversation)
    with pytest.raises(
        ReaderError, match=r"`prompt` must be left out of conversations, .* but talk/one is asked"
    ):
        Wording().row(ONE, "talk", "vqa: what?")

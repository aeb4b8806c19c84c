"""Models without a template, and models that compare: what they read and what they refuse."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import BlipProcessor

from weft.core.testing.processed import tiny
from weft.core.testing.processed.words import tokenizer
from weft.eval.readers import (
    Limits,
    PairedProcessor,
    Reader,
    ReaderError,
    Row,
    Turn,
    Writing,
    ask,
    reader_for,
)
from weft.eval.readers.ways.dual_encoder import OpenClipConfig
from weft.eval.testing import capabilities, markdown, picture
from weft.eval.testing.own_subjects import own_subject, shown
from weft.eval.testing.tiny_subjects import tiny_subject

A, B, C = picture(60, 40, 1), picture(64, 64, 2), picture(40, 60, 3)
ROW = ask("what colour?", [A], name="vqa/1", task="vqa", answer="red")


def read(name: str, **limits: Any) -> Reader:
    made = tiny(name)
    return reader_for(made.model.config, made.processor, limits=Limits(**limits))


PAIRS = [ask(text, [image], name=f"r/{k}") for k, (text, image) in enumerate((("a", A), ("b", B), ("c", C)))]
QUESTIONS = ("paligemma", "blip2", "instructblip", "florence2", "blip_vqa", "blip_caption")


@pytest.mark.parametrize("name", QUESTIONS)
def test_rows_that_a_model_of_one_question_cannot_read_are_refused(name: str) -> None:
    reader = read(name)
    many = replace(ROW, name="vqa/2", turns=(Turn("user", (A, B, "which?")),))
    wrong = {
        "has earlier answers": replace(ROW, turns=(*ROW.turns, Turn("assistant", ("red",)), *ROW.turns)),
        "vqa/2 has 2|None": many,
        "must be .*1 for this model, but vqa/1 has 0": replace(ROW, turns=(Turn("user", ("what?",)),)),
        "text before one": replace(ROW, turns=(Turn("user", ("this", A, "is?")),)),
        "a word to learn": replace(ROW, answer=""),
    }
    for message, row in wrong.items():
        if row is many and name == "paligemma":
            assert reader.training([row]).owners["images"].tolist() == [0, 0]
            continue
        with pytest.raises(ReaderError, match=message):
            reader.training([row])


@pytest.mark.parametrize("name", QUESTIONS)
def test_answers_that_are_too_long_are_dropped_with_their_pictures(name: str) -> None:
    long = replace(ROW, name="vqa/2", answer="a large purple hexagon beside a small blue circle")
    batch = read(name, answer_tokens=9, too_long="drop").training([long, ROW])
    assert (batch.names, batch.left_out, len(batch.inputs["pixel_values"])) == (["vqa/1"], ("vqa/2",), 1)
    with pytest.raises(ReaderError, match=r"`answer_tokens` must be .* but is 9, and vqa/2 has"):
        read(name, answer_tokens=9).training([ROW, long])


def test_several_pictures_of_a_row_are_read_in_their_order_by_paligemma() -> None:
    made, reader = tiny("paligemma"), read("paligemma")
    rows = [replace(ROW, turns=(Turn("user", (*pictures, "which?")),)) for pictures in ((A, B), (B, A), (C,))]
    with torch.no_grad():
        together = reader.losses(made.model, reader.training(rows)).sums
        alone = torch.cat([reader.losses(made.model, reader.training([row])).sums for row in rows])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)
    assert len(set(together.tolist())) == 3


def test_the_q_former_reads_its_prompt_as_if_it_stood_alone() -> None:
    # The processor pads both tokenizers on the side of the first; its positions are counted from the left.
    made, reader = tiny("instructblip"), read("instructblip")
    batch = reader.training([ROW, ask("what shape is that in the picture?", [B], answer="star")])
    alone = reader.training([ROW]).inputs["qformer_input_ids"]
    assert torch.equal(batch.inputs["qformer_input_ids"][:1, : alone.shape[1]], alone)
    assert made.processor.tokenizer.padding_side == "left"


def test_what_a_blip_decoder_looks_at_has_no_padding() -> None:
    # Releases of transformers forget its mask, so that padding would be looked at.
    made, reader, seen = tiny("blip_vqa"), read("blip_vqa"), []
    rows = [ROW, ask("what shape is that in the picture?", [B], answer="star")]
    batch = reader.asking(rows)
    cross = made.model.text_decoder.bert.encoder.layer[0].crossattention

    def note(module: Any, given: Any, named: Any) -> None:
        seen.append(named["encoder_hidden_states"].shape[1])

    hook = cross.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with torch.no_grad():
            reader.losses(made.model, reader.training(rows))
            reader.generate(made.model, batch, Writing(max_new_tokens=2))
    finally:
        hook.remove()
    assert set(seen) == set(batch.inputs["attention_mask"].sum(1).tolist())
    assert len(set(seen)) == 2


@pytest.mark.parametrize("name", ["llava", "paligemma", "florence2", "blip_vqa", "clip"])
def test_a_model_in_half_precision_is_read_in_its_own_precision(name: str) -> None:
    made, reader = tiny(name), read(name)
    model, rows = copy.deepcopy(made.model).to(torch.bfloat16), PAIRS if name == "clip" else [ROW, ROW]
    batch = reader.training(rows).to("cpu", dtype=torch.bfloat16)
    assert batch.inputs["pixel_values"].dtype == torch.bfloat16
    with torch.no_grad():
        half, full = reader.losses(model, batch).mean, reader.losses(made.model, reader.training(rows)).mean
    torch.testing.assert_close(half.float(), full, rtol=2e-2, atol=2e-2)
    if "score" in reader.abilities:
        (wide,), (narrow,) = (reader.score(own, rows[:1], [["red"]]) for own in (made.model, model))
        assert narrow == pytest.approx(wide, rel=2e-2)


def test_a_decoder_needs_the_token_that_answers_begin_behind() -> None:
    made = tiny("florence2")
    config = type(made.model.config)(**made.model.config.to_dict())
    config.text_config.decoder_start_token_id = None
    with pytest.raises(ReaderError, match="`decoder_start_token_id` must be in the config"):
        reader_for(config, made.processor).training([ROW])


@pytest.mark.parametrize("name", ["clip", "siglip", "siglip2"])
def test_rows_that_show_the_same_are_no_negatives_of_one_another(name: str) -> None:
    made, reader = tiny(name), read(name)
    again = replace(PAIRS[0], name="r/9")
    with torch.no_grad():
        pairs = reader.losses(made.model, reader.training(PAIRS)).sums
        twice = reader.losses(made.model, reader.training([*PAIRS, again])).sums
    torch.testing.assert_close(twice[0], pairs[0], rtol=0, atol=1e-5)
    assert twice[1] > pairs[1]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_a_text_beyond_the_last_place_is_refused_dropped_or_cut_as_asked(name: str) -> None:
    long = ask("a red square beside a small blue circle " * 4, [A], name="r/8")
    with pytest.raises(ReaderError, match="r/8 has"):
        read(name).training([*PAIRS, long])
    assert read(name, too_long="drop").training([*PAIRS, long]).left_out == ("r/8",)
    with pytest.raises(ReaderError, match="`too_long` must be 'refuse' or 'cut' where rows are asked"):
        read(name, too_long="drop").asking([*PAIRS, long])
    cut = read(name, too_long="cut").training([*PAIRS, long]).inputs["input_ids"]
    assert cut.shape[1] == tiny(name).model.config.text_config.max_position_embeddings


def test_one_side_is_asked_alone_and_half_a_side_is_refused() -> None:
    reader = read("clip")
    assert "pixel_values" not in reader.asking([ask("a"), ask("b")]).inputs
    assert list(reader.asking([replace(row, turns=(Turn("user", (A,)),)) for row in PAIRS]).inputs) == [
        "pixel_values"
    ]
    with pytest.raises(ReaderError, match="must be in all rows or in none, but r/9 lacks"):
        reader.asking([PAIRS[0], ask("b", name="r/9")])
    with pytest.raises(ReaderError, match="at least two rows to compare, but holds 1"):
        reader.training(PAIRS[:1])


class OpenClip(nn.Module):
    """Has the calls of a model of open_clip."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.patch = nn.Embedding(400, 8), nn.Linear(3 * 32 * 32, 8)
        self.logit_scale = nn.Parameter(torch.tensor(1.0))

    def encode_text(self, text: torch.Tensor) -> torch.Tensor:
        return self.words(text).sum(1)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return self.patch(image.flatten(1))

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> Any:
        sides = self.encode_image(image), self.encode_text(text)
        return *(nn.functional.normalize(each, dim=-1) for each in sides), self.logit_scale.exp()


def test_a_model_of_open_clip_is_read_through_its_own_calls() -> None:
    torch.manual_seed(0)
    model = OpenClip()

    def flat(pictures: Any) -> dict[str, torch.Tensor]:
        return {"pixel_values": shown(pictures)["pixel_values"].flatten(0, 1)}

    reader = reader_for(OpenClipConfig(), PairedProcessor(tokenizer(template="<s> $A </s>"), flat))
    batch = reader.training(PAIRS)
    with torch.no_grad():
        texts, images = reader.embed_texts(model, batch), reader.embed_pictures(model, batch)
        similarity = model.logit_scale.exp() * texts @ images.T
        own = torch.arange(3)
        loss = nn.functional.cross_entropy
        expected = (loss(similarity, own) + loss(similarity.T, own)) / 2
        torch.testing.assert_close(reader.losses(model, batch).mean, expected)


def test_own_models_need_a_tokenizer_and_pictures() -> None:
    for name in ("vl_bart", "weft_dual_encoder"):
        with pytest.raises(ReaderError, match="a PairedProcessor"):
            reader_for(own_subject(name).model.config, tiny("clip").processor)


def test_own_models_cut_texts_only_where_a_row_says_so() -> None:
    reader = own_subject("vl_bart").reader
    assert reader.training([ROW]).inputs["input_ids"].shape[1] > 4
    cut = reader.training([replace(ROW, text_tokens=4, answer_tokens=2)])
    assert cut.inputs["input_ids"].shape[1] == 4
    assert cut.labels is not None
    assert cut.labels.shape[1] == 2


def test_a_blip_without_a_known_head_is_no_blip_to_read() -> None:
    made = tiny("blip_vqa")
    config = type(made.model.config)()
    assert isinstance(made.processor, BlipProcessor)
    with pytest.raises(ReaderError, match="its config names no architecture, and none of BlipForImage"):
        reader_for(config, made.processor, "blip")


def test_candidates_are_needed_to_be_scored() -> None:
    made = tiny("llava")
    with pytest.raises(ReaderError, match="at least one answer, but vqa/1 has none"):
        read("llava").score(made.model, [ROW], [[]])


def test_the_table_of_capabilities_says_what_was_checked() -> None:
    table = capabilities([tiny_subject("clip"), own_subject("vl_bart")])
    assert table["vl_bart"]["features"] == table["clip"]["embed"] == "yes"
    assert markdown(table).splitlines()[2:] == [
        "| clip | dual_encoder | contrastive |  |  | yes |  | yes |  | yes |",
        "| vl_bart | seq2seq | generation | yes | yes |  |  |  | yes | yes |",
    ]


def test_a_capability_that_does_not_hold_is_an_error_and_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = tiny_subject("clip")
    monkeypatch.setattr(type(subject.reader), "embed_texts", lambda self, model, batch: torch.ones(4, 8))
    with pytest.raises(AssertionError):
        capabilities([subject])


def test_rows_are_written_as_they_are_told() -> None:
    row = Row("r", "t", (Turn("system", ("be short",)), Turn("user", (A, "what?"))))
    assert row.text == "be short\nwhat?"
    assert row.pictures == (A,)

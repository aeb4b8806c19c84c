"""Records of every kind, put to tiny models by their readers, as the commands do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from weft.core.testing.processed import tiny
from weft.data import PairBool, Retrieval, load_dataset
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.predict import predict, unfit
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.metrics.matches import Matches
from weft.eval.readers import Limits, ReaderError, Wording, ask, reader_for
from weft.eval.readers.preview import preview

ASK = Wording(ask="{question} One word.", system="Be brief.")


@pytest.fixture(scope="module")
def questions() -> Sequence[Any]:
    return load_dataset("scenes", split="test", task="vqa", size=40, num_scenes=12)[:6]


@pytest.fixture(scope="module")
def captions() -> Sequence[Any]:
    return load_dataset("scenes", split="test", task="caption", size=40, num_scenes=12)[:6]


def batches_of(name: str, **fields: Any) -> tuple[Any, ReaderBatches]:
    made = tiny(name)
    rules = {"vqa": TextRules(max_new_tokens=5), "caption": TextRules(prompt="caption")}
    words = {"vqa": ASK, "caption": Wording()}
    given = {"rules": rules, "wordings": words, "seed": 3} | fields
    return made.model, ReaderBatches(reader_for(made.model.config, made.processor), **given)


def test_written_answers_do_not_depend_on_the_batch(questions: Sequence[Any]) -> None:
    model, batches = batches_of("llava")
    together = predict(model, "vqa", questions, batches, batch_size=4)
    alone = predict(model, "vqa", questions, batches, batch_size=1)
    assert together == alone
    assert list(alone) == [record.id for record in questions] or set(alone) == {r.id for r in questions}


def test_truth_is_the_likelier_of_two_words(questions: Sequence[Any]) -> None:
    model, batches = batches_of("llava", rules={"nlvr": TextRules()}, wordings={"nlvr": Wording()})
    records = [
        PairBool(id=one.id, images=(one.image,), group_id=one.id, sentence=one.question, label=True)
        for one in questions
    ]
    said = predict(model, "nlvr", records, batches, batch_size=3)
    rows = [batches.row("nlvr", record) for record in records]
    scores = batches.reader.score(model, rows, [["true", "false"]] * len(rows))
    assert said == {
        record.id: "true" if true > false else "false"
        for record, (true, false) in zip(records, scores, strict=True)
    }


@pytest.mark.parametrize("per_token", [False, True])
def test_the_likeliest_candidate_is_chosen(questions: Sequence[Any], per_token: bool) -> None:
    model, batches = batches_of("paligemma", wordings={"vqa": Wording()})
    candidates = ["red", "a large circle", "no"]
    chosen = rank_answers(model, "vqa", questions, batches, candidates, per_token=per_token, batch_size=4)
    rows = [batches.row("vqa", record) for record in questions]
    for record, own in zip(
        questions, batches.reader.score(model, rows, [candidates] * len(rows)), strict=True
    ):
        lengths = [batches.reader.answer_length(answer) if per_token else 1 for answer in candidates]
        means = [score / length for score, length in zip(own, lengths, strict=True)]
        assert chosen[record.id] == candidates[means.index(max(means))]


@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_features_of_either_side_are_the_models_own(name: str, captions: Sequence[Any]) -> None:
    model, batches = batches_of(name)
    records = [
        Retrieval(id=one.id, media=one.media, media_id=one.media_id, text=f"a {k} circle", text_id=one.id)
        for k, one in enumerate(captions)
    ]
    found = predict(model, "caption", records, batches, batch_size=4)
    assert isinstance(found, Matches)
    pictures = {record.media_id: record.media.image() for record in records}
    with torch.inference_mode():
        own = model.get_image_features(
            tiny(name).processor.image_processor(images=list(pictures.values()), return_tensors="pt")[
                "pixel_values"
            ]
        )
        own = torch.nn.functional.normalize(getattr(own, "pooler_output", own), dim=-1)
    np.testing.assert_allclose(found.image_features, own.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.text_features, axis=1), 1.0, atol=1e-6)


def test_a_model_of_transformers_that_matches_orders_the_best_candidates_anew(
    captions: Sequence[Any],
) -> None:
    model, batches = batches_of("blip_itr")
    records = [
        Retrieval(id=one.id, media=one.media, media_id=one.id, text=f"a {k} circle", text_id=one.id)
        for k, one in enumerate(captions)
    ]
    found = predict(model, "caption", records, batches, batch_size=4, rerank={"candidates": 3})
    assert isinstance(found, Matches)
    assert found.reranked is not None
    for place, record in enumerate(records):
        for text, score in zip(found.reranked.texts[place], found.reranked.text_scores[place], strict=True):
            row = ask(batches.row("caption", records[text]).text, [record.media])
            with torch.no_grad():
                own = batches.reader.match(model, batches.reader.asking([row]))
            assert score == pytest.approx(float(own[0]), abs=1e-5)
    with pytest.raises(ReaderError, match="it weights no frames"):
        predict(model, "caption", records, batches, rerank={"candidates": 3, "frame_aware": True})


def test_rows_that_are_too_long_are_left_out_and_said(questions: Sequence[Any]) -> None:
    _, batches = batches_of("llava")
    lengths = [
        int(batches.training([("vqa", record)])["batch"].inputs["attention_mask"].sum())
        for record in questions
    ]
    limit = sorted(lengths)[len(lengths) // 2 - 1]
    assert limit < max(lengths)
    batches.limits = Limits(tokens=limit, too_long="drop")
    assert batches.may_drop
    made = batches.training([("vqa", record) for record in questions])
    assert made["kept"] == [place for place, length in enumerate(lengths) if length <= limit]
    assert made["tasks"] == ["vqa"] * len(made["kept"])
    assert len(made["batch"].left_out) == len(questions) - len(made["kept"])
    batches.limits = Limits(tokens=limit)
    with pytest.raises(ReaderError, match=r"`tokens` must be at least the length of every row.*vqa/"):
        batches.training([("vqa", record) for record in questions])


def test_what_is_drawn_depends_on_seed_and_epoch_alone(captions: Sequence[Any]) -> None:
    _, batches = batches_of("llava")
    rows = [("caption", record) for record in captions]
    once, again = (batches.training(rows, epoch=2)["batch"] for _ in range(2))
    assert torch.equal(once.labels, again.labels)
    assert batches.row("caption", captions[0]).answer is None
    assert batches.row("caption", captions[0], 2).answer in captions[0].captions


def test_a_blank_picture_hides_everything_but_its_size(questions: Sequence[Any]) -> None:
    _, seen = batches_of("qwen2_5_vl")
    _, blank = batches_of("qwen2_5_vl", blank=True)
    rows = [("vqa", record) for record in questions[:2]]
    one, two = (batches.training(rows)["batch"] for batches in (seen, blank))
    assert torch.equal(one.inputs["input_ids"], two.inputs["input_ids"])
    assert one.inputs["pixel_values"].std() > two.inputs["pixel_values"].std()


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("clip", "vqa", "clip, read as 'dual_encoder', cannot write an answer: it can give features"),
        ("llava", "retrieval", "llava, read as 'chat', cannot give features of texts and of images"),
    ],
)
def test_what_a_reader_cannot_do_is_said(
    name: str, kind: str, reason: str, questions: Sequence[Any], captions: Sequence[Any]
) -> None:
    _, batches = batches_of(name)
    one = captions[0]
    pair = Retrieval(id="1", media=one.media, media_id="1", text="a", text_id="1")
    said = unfit(batches.reader, questions if kind == "vqa" else [pair])
    assert said is not None
    assert reason in said


def test_prompt_and_learned_tokens_are_shown(questions: Sequence[Any]) -> None:
    _, batches = batches_of("llava")
    shown = preview(batches.reader, batches.row("vqa", questions[0], 0))
    assert "<image>×16" in shown.prompt
    assert shown.prompt.endswith("ASSISTANT: ")
    assert "One word." in shown.prompt.replace("  ", " ")
    assert shown.learned[-1] == "</s>"
    _, encoders = batches_of("siglip")
    assert preview(encoders.reader, ask("a red circle", [questions[0].image])).learned == ()
    long = ask("red circle " * 9, [questions[0].image])
    with pytest.raises(ReaderError, match="`tokens` must be at least the length of every row, but is 16"):
        encoders.reader.check(long)
    encoders.limits = Limits(too_long="cut")
    encoders.asker.check(long)


@pytest.mark.parametrize("name", ["blip_vqa", "blip_caption", "florence2"])
def test_the_prompt_of_an_encoder_is_shown_apart_from_the_answer(name: str, questions: Sequence[Any]) -> None:
    _, batches = batches_of(name, wordings={"vqa": Wording()})
    row = batches.row("vqa", questions[0], 0)
    shown = preview(batches.reader, row)
    assert row.answer is not None
    assert row.answer not in shown.prompt
    learned = "".join(shown.learned).removeprefix("<s>").replace(" ", "")
    assert learned.startswith(row.answer.replace(" ", ""))

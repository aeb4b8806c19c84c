"""weft's own models are read as the evaluators read them: the same tensors, answers and choices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from weft.data import Retrieval, load_dataset
from weft.data.media.transforms import ImageTransform
from weft.eval.evaluate.inputs import Batches, TextRules, example
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.visual import Pixels
from weft.eval.metrics.matches import Matches
from weft.eval.readers import PairedProcessor, Reader, Row, Wording, Writing, reader_for
from weft.eval.testing.own_subjects import own_subject

SHOW = Pixels(ImageTransform(size=32, shape="square", crop=None))
RULES = {
    "vqa": TextRules(prompt="vqa: ", max_new_tokens=4),
    "caption": TextRules(prompt="caption: ", max_target_tokens=256),
}
WORDS = {name: Wording(ask=f"{rules.prompt}{{text}}") for name, rules in RULES.items()}


@pytest.fixture(scope="module")
def records() -> dict[str, Sequence[Any]]:
    found: dict[str, Sequence[Any]] = {
        task: load_dataset("scenes", split="test", task=task, size=32, num_scenes=12)[:6] for task in RULES
    }
    found["retrieval"] = [
        Retrieval(id=one.id, media=one.media, media_id=one.media_id, text=one.captions[0], text_id=one.id)
        for one in found["caption"]
    ]
    return found


def rows_of(task: str, records: Sequence[Any]) -> list[Row]:
    drawn = [example(record, task, seed=3, epoch=1) for record in records]
    return [
        WORDS[task].row(record, task, one.text, one.target, one.weight)
        for record, one in zip(records, drawn, strict=True)
    ]


def pair(name: str) -> tuple[Any, Reader, Batches]:
    subject = own_subject(name)
    words = subject.processor.tokenizer
    read = reader_for(subject.model.config, PairedProcessor(words, SHOW, max_text_tokens=64))
    return subject.model, read, Batches(words, SHOW, RULES, seed=3)


@pytest.mark.parametrize("name", ["vl_bart", "vl_t5"])
def test_training_batches_hold_the_tensors_that_they_held(
    name: str, records: dict[str, Sequence[Any]]
) -> None:
    _, read, batches = pair(name)
    mixed = [(task, record) for task in RULES for record in records[task]]
    before = batches.training(mixed, epoch=1)
    batch = read.training([row for task in RULES for row in rows_of(task, records[task])])
    for key in ("input_ids", "attention_mask", "pixel_values"):
        assert torch.equal(batch.inputs[key], before[key]), key
    assert torch.equal(batch.labels, before["labels"])
    torch.testing.assert_close(batch.weights, before["weights"])
    assert batch.tasks == before["tasks"]


@pytest.mark.parametrize("name", ["vl_bart", "vl_t5", "weft_blip_answering"])
def test_answers_are_the_evaluators_answers(name: str, records: dict[str, Sequence[Any]]) -> None:
    model, read, batches = pair(name)
    before = predict(model, "vqa", records["vqa"], batches, batch_size=1)
    rows = rows_of("vqa", records["vqa"])
    found = read.write(model, read.asking(rows), Writing(max_new_tokens=4))
    assert found == [before[record.id] for record in records["vqa"]]


def test_the_likeliest_candidate_is_the_evaluators_choice(records: dict[str, Sequence[Any]]) -> None:
    model, read, batches = pair("vl_bart")
    candidates = ["red", "two", "a large circle", "yes"]
    before = rank_answers(model, "vqa", records["vqa"], batches, candidates)
    scores = read.score(model, rows_of("vqa", records["vqa"]), [candidates] * len(records["vqa"]))
    found = [candidates[own.index(max(own))] for own in scores]
    assert found == [before[record.id] for record in records["vqa"]]


@pytest.mark.parametrize("name", ["weft_dual_encoder", "weft_blip_retrieval"])
def test_features_are_the_evaluators_features(name: str, records: dict[str, Sequence[Any]]) -> None:
    model, read, batches = pair(name)
    batches.rules = {"retrieval": TextRules()}
    before = predict(model, "retrieval", records["retrieval"], batches, batch_size=6)
    assert isinstance(before, Matches)
    texts = {record.text_id: record for record in records["retrieval"]}
    rows = [Wording().row(record, "retrieval", record.text) for record in texts.values()]
    with torch.inference_mode():
        found = read.embed_texts(model, read.asking(rows)).numpy()
    assert (abs(found - before.text_features) < 1e-6).all()

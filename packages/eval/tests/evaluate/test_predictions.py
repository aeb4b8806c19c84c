import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerFast, ResNetConfig

from weft.core import attach
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.testing.backbones import bart_config
from weft.core.testing.processed.words import word_tokenizer
from weft.data import Caption, Classify, ImageQA, MediaRef, PairBool, Record, load_dataset
from weft.data.media.transforms import ImageTransform
from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.scoring import blind_majority, majority, reference, score
from weft.eval.evaluate.visual import Pixels
from weft.eval.readers.batch import IGNORED
from weft.eval.testing.own_subjects import paired_batches

WORDS = "vqa nlvr : true false yes no red green blue what is the color of star how many two one a and left right image"
TRANSFORM = ImageTransform(
    size=48, shape="square", crop=None, mean=(0.5,) * 3, std=(0.5,) * 3, resample="bilinear"
)


def make_tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(["<s>", "<pad>", "</s>", "<unk>", *WORDS.split()])


def make_model(vocabulary: int = 40) -> VisualSeq2Seq:
    torch.manual_seed(0)
    layers = {"encoder_layers": 1, "decoder_layers": 1}
    language = bart_config(vocab_size=vocabulary, init_std=0.3, forced_eos_token_id=None, **layers)
    vision = ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12], depths=[1, 1, 1], layer_type="basic")
    config = VisualSeq2SeqConfig(language, vision, feature_size=12, num_visual_tokens=9)
    return VisualSeq2Seq(config).eval()


@pytest.fixture(scope="module")
def records() -> dict[str, Sequence[Any]]:
    return {
        t: load_dataset("scenes", split="test", task=t, size=24, num_scenes=60)
        for t in ("vqa", "nlvr", "caption")
    }


def make_batches(visual: Any) -> ReaderBatches:
    rules = {name: TextRules(prompt=f"{name}: ", max_new_tokens=4) for name in ("vqa", "nlvr", "caption")}
    return paired_batches(make_model().config, make_tokenizer(), visual, rules)


def test_predictions_do_not_depend_on_the_batch_size(records):
    model = attach(
        make_model(),
        {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"},
        ["vqa", "nlvr"],
    )
    batches = make_batches(Pixels(TRANSFORM))
    seen: list[int] = []
    for task in ("vqa", "nlvr"):
        one = predict(model, task, records[task], batches, batch_size=24, progress=seen.append)
        assert one == predict(model, task, records[task], batches, batch_size=5)
        assert set(one) == {r.id for r in records[task]}
    assert seen[0] == 24


def test_true_or_false_is_decided_by_the_logits_after_the_start_of_the_answer(records):
    model = make_model()
    batches = make_batches(Pixels(TRANSFORM))
    words = make_tokenizer()(["true", "false"]).input_ids
    got = predict(model, "nlvr", records["nlvr"], batches)
    inputs = batches.reader.asking([batches.row("nlvr", record) for record in records["nlvr"]]).inputs
    with torch.no_grad():
        logits = model(**inputs, decoder_input_ids=torch.tensor([[2, 0]]).expand(24, -1)).logits[:, 1]
    want = {
        r.id: "true" if row[words[0][1]] > row[words[1][1]] else "false"
        for r, row in zip(records["nlvr"], logits, strict=True)
    }
    assert got == want


def test_predicting_leaves_the_model_in_the_mode_it_had(records):
    model = make_model().train()
    predict(model, "vqa", records["vqa"][:4], make_batches(Pixels(TRANSFORM)))
    assert model.training


def test_training_rows_of_several_tasks_share_a_batch(records):
    batches = make_batches(Pixels(TRANSFORM))
    rows = [("vqa", records["vqa"][0]), ("caption", records["caption"][0])]
    batch = batches.training(rows)["batch"]
    assert batch.tasks == ["vqa", "caption"]
    assert batch.weights.tolist() == [1.0, 1.0]
    assert batch.inputs["pixel_values"].shape == (2, 1, 3, 48, 48)
    assert (batch.labels[0] == IGNORED).any()
    text = make_tokenizer().decode(batch.inputs["input_ids"][0], skip_special_tokens=True)
    assert text.startswith("vqa : what")


def image() -> MediaRef:
    return MediaRef.from_bytes(b"")


def test_answers_are_drawn_by_their_soft_scores_and_differ_between_epochs():
    record = ImageQA(
        id="1", image=image(), image_id="1", question="q", soft_targets={"red": 0.9, "green": 0.3}
    )
    target = kind_of([record]).target
    drawn = [target(record, random.Random(k)) for k in range(400)]
    assert {("red", 0.9), ("green", 0.3)} == set(drawn)
    assert 0.68 < np.mean([answer == "red" for answer, _ in drawn]) < 0.82


def test_hidden_answers_have_no_weight():
    question = ImageQA(id="1", image=image(), image_id="1", question="q")
    pair = PairBool(id="1", images=(image(),), group_id="1", sentence="s")
    caption = Caption(id="1", media=image(), media_id="1")
    for record in (question, pair, caption):
        assert kind_of([record]).target(record, random.Random(0))[1] == 0.0
        with pytest.raises(ScoreInputError, match="1 have none, such as '1'"):
            score("vqa", {"1": "red"}, [record])


def test_records_without_a_kind_are_refused():
    with pytest.raises(ScoreInputError, match="'record' cannot be read"):
        kind_of([Record(id="1")])
    record = Classify(id="1", image=image(), label=0, class_name="cat")
    with pytest.raises(ScoreInputError, match="at least one record"):
        kind_of([])
    with pytest.raises(
        ScoreTypeError, match="'image_qa' for the metric 'vqa', but '1' is of type 'classify'"
    ):
        score("vqa", {"1": "cat"}, [record])


def test_perfect_predictions_score_a_hundred_and_show_groups(records):
    for task, metric in (
        ("vqa", "vqa"),
        ("vqa", "gqa"),
        ("nlvr", "nlvr"),
        ("nlvr", "nlvr2"),
        ("caption", "caption"),
    ):
        headline = "Bleu_4" if metric == "caption" else None
        report = score(metric, {r.id: reference(r) for r in records[task]}, records[task], headline=headline)
        assert report.percent == pytest.approx(100.0)
        assert "combination" in report.groups
    assert report.headline == "Bleu_4"


@pytest.mark.parametrize(
    ("metric", "headline", "message"),
    [("vqaa", None, "`metric` must be one of"), ("vqa", "x", "`headline` must be one of")],
)
def test_unknown_metrics_and_headlines_are_refused(records, metric, headline, message):
    answers = {r.id: reference(r) for r in records["vqa"]}
    with pytest.raises(ScoreInputError, match=message):
        score(metric, answers, records["vqa"], headline=headline)


def test_majorities_are_learned_from_training_answers_alone():
    def question(name: str, text: str, answer: str) -> ImageQA:
        return ImageQA(
            id=name, image=image(), image_id=name, question=text, answers=(answer,), question_type=text
        )

    train = [question("1", "color", "red"), question("2", "color", "red"), question("3", "count", "two")]
    test = [question("4", "color", "blue"), question("5", "count", "one"), question("6", "new", "x")]
    assert majority(train, test) == {"4": "red", "5": "red", "6": "red"}
    assert blind_majority(train, test) == {"4": "red", "5": "two", "6": "red"}

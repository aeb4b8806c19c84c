import random
from collections import Counter

import pytest

from weft.data import Caption, ImageQA, MediaRef
from weft.data.records.record_set import RecordSet
from weft.eval.evaluate.inputs import example
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.scoring import score
from weft.train.errors import RunError
from weft.train.preflight.pretraining import mask_spans, mask_words, pretraining_records
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import PretrainingSection
from weft.train.runs.run import execute

TEXTS = {
    "1": ("a red ball on a box", "the ball is red"),
    "2": ("two green stars in a row", "a row of stars"),
    "3": ("one blue square below a line", "a square and a line"),
}


def captions() -> RecordSet[Caption]:
    media = MediaRef.from_bytes(b"")
    return RecordSet(
        "made",
        "train",
        "caption",
        [Caption(id=k, media=media, media_id=k, captions=v) for k, v in TEXTS.items()],
    )


def section(objective: str, **values: object) -> PretrainingSection:
    return PretrainingSection.model_validate({"objective": objective, **values})


def test_masked_words_are_a_share_and_at_least_one():
    text = " ".join(str(k) for k in range(40))
    masked = mask_words(text, random.Random(1), 0.25, "<mask>").split()
    assert masked.count("<mask>") == 10
    assert all(word in ("<mask>", str(k)) for k, word in enumerate(masked))
    assert mask_words("one", random.Random(1), 0.1, "_") == "_"
    assert mask_words("", random.Random(1), 0.1, "_") == ""


@pytest.mark.parametrize("seed", range(20))
def test_spans_put_back_give_the_text(seed):
    text = "a red ball on a box beside two green stars in a row"
    shown, hidden = mask_spans(text, random.Random(seed), 0.4)
    spans = {}
    for word in hidden.split():
        if word.startswith("<extra_id_"):
            spans[word] = []
            last = word
        else:
            spans[last].append(word)
    assert list(spans) == [f"<extra_id_{k}>" for k in range(len(spans))]
    assert " ".join(" ".join(spans.get(word, [word])) for word in shown.split()) == text
    assert sum(map(len, spans.values())) == round(0.4 * len(text.split()))


def test_denoising_draws_anew_in_every_epoch_and_restores_a_caption_of_the_image():
    (record, *_) = pretraining_records(captions(), section("denoising", rate=0.5))
    drawn = [example(record, "denoise", seed=0, epoch=epoch) for epoch in range(20)]
    assert {each.target for each in drawn} == set(TEXTS["1"])
    assert len({each.text for each in drawn}) > 5
    assert all("<mask>" in each.text for each in drawn)
    assert kind_of([record]).text(record) == record.question
    assert record.answers == (TEXTS["1"][0],)


def test_about_half_of_the_pairs_match_and_no_caption_of_the_image_is_called_false():
    records = pretraining_records(captions(), section("matching"))
    seen = Counter()
    for record in records:
        for epoch in range(200):
            drawn = example(record, "match", seed=3, epoch=epoch)
            assert (drawn.text in TEXTS[record.id]) == (drawn.target == "true")
            seen[drawn.target] += 1
    assert 0.4 < seen["true"] / seen.total() < 0.6
    assert all((record.sentence in TEXTS[record.id]) == record.label for record in records)


def test_captions_of_one_image_in_several_records_are_never_called_false():
    media = MediaRef.from_bytes(b"")
    single = [
        Caption(id=f"{k}{n}", media=media, media_id=k, captions=(text,))
        for k, texts in TEXTS.items()
        for n, text in enumerate(texts)
    ]
    records = pretraining_records(
        RecordSet("made", "train", "caption", single), section("matching", rate=0.9)
    )
    for record in records:
        for epoch in range(50):
            drawn = example(record, "match", seed=0, epoch=epoch)
            assert drawn.target == "true" or drawn.text not in TEXTS[record.id[0]]


def test_evaluation_is_fixed_and_scored():
    for objective, metric, headline in (("denoising", "gqa", "accuracy"), ("matching", "nlvr", "accuracy")):
        once, again = (pretraining_records(captions(), section(objective)) for _ in range(2))
        assert [kind_of([r]).text(r) for r in once] == [kind_of([r]).text(r) for r in again]
        right = {r.id: r.answers[0] if isinstance(r, ImageQA) else str(r.label).lower() for r in once}
        assert score(metric, right, once).scores[headline] in (1.0, 100.0)


def test_what_cannot_be_pretrained_on_is_refused():
    media = MediaRef.from_bytes(b"")
    question = RecordSet(
        "made", "train", "image_qa", [ImageQA(id="1", image=media, image_id="1", question="?")]
    )
    with pytest.raises(RunError, match="needs records with captions, but '1' is a ImageQA without"):
        pretraining_records(question, section("denoising"))
    with pytest.raises(RunError, match="needs captions of other images, but '1' has all there are"):
        pretraining_records(captions()[:1], section("matching"))


def test_three_objectives_train_together_and_their_model_is_the_next_backbone(values):
    def task(name, **changes):
        options = {"task": "caption", "size": 40, "num_scenes": 60}
        data = {"name": "scenes", "options": options, "test_options": {"size": 12}, **changes}
        return {"prompt": f"{name}: ", "max_new_tokens": 4, "data": data}

    values |= {
        "method": {"method": "full"},
        "save_model": True,
        "tasks": {
            "denoise": task("denoise text", pretraining={"objective": "denoising"}),
            "caption": task("caption"),
            "match": task("image text match", pretraining={"objective": "matching"}),
        },
    }
    first = execute(load_recipe(values))
    assert set(first.scores) == {"denoise", "caption", "match", "average"}
    adapted = {"backbone": {"name": str(first.folder / "model")}, "save_model": False, "name": "adapted"}
    adapted |= {"method": {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "single"}}
    assert execute(load_recipe(values | adapted)).trainable < first.trainable

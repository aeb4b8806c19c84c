from typing import Any

import pytest

from weft.data import Caption, ImageQA, MediaRef, Record, Retrieval, VideoQA, record_class
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.kinds import kind_of, metric_of
from weft.eval.evaluate.metric_fit import check_metric, check_targets
from weft.eval.evaluate.scoring import score
from weft.eval.metrics import ScoreReport, exact_accuracy
from weft.eval.metrics.registry import METRICS, register_metric

IMAGE = MediaRef.from_bytes(b"", "image")
QUESTIONS = [
    ImageQA(id=str(k), image=IMAGE, image_id="1", question="?", answers=("yes", "no")) for k in range(3)
]
CAPTIONS = [Caption(id=str(k), media=IMAGE, media_id=str(k), captions=("a red hat",)) for k in range(3)]
PAIRS = [
    Retrieval(id=str(k), media=IMAGE, media_id=str(k % 2), text=f"text {k}", text_id=str(k)) for k in range(3)
]


def test_every_metric_says_what_it_scores() -> None:
    assert all(metric.types and all(map(record_class, metric.types)) for metric in METRICS.values())


def test_a_metric_from_outside_scores_like_the_official_ones() -> None:
    def first_words(predictions: Any, records: Any, groups: Any) -> ScoreReport:
        right = {r.id: r.answers[0].split()[0] for r in records}
        return exact_accuracy(
            {key: text.split()[0] for key, text in predictions.items()}, right, groups=groups
        )

    try:
        register_metric("first_word", "image_qa")(first_words)
        check_metric("first_word", QUESTIONS)
        report = score("first_word", {r.id: "yes indeed" for r in QUESTIONS}, QUESTIONS)
        assert report.scores["accuracy"] == 100
        with pytest.raises(ScoreInputError, match=r"'first_word' scores 'image_qa'\. Take 'caption'"):
            check_metric("first_word", CAPTIONS)
        with pytest.raises(ScoreInputError, match="`metric` must be new, but 'first_word' is taken by"):
            register_metric("first_word", "caption")(first_words)
    finally:
        METRICS.forget("first_word")


@pytest.mark.parametrize(
    ("records", "headline"),
    [(QUESTIONS, "accuracy"), (CAPTIONS, "CIDEr"), (CAPTIONS, "exact"), (PAIRS, "t2i_R@1")],
)
def test_a_metric_fits_its_records_and_has_its_headlines(records: list[Record], headline: str) -> None:
    metric = kind_of(records).metric
    check_metric(metric, records)
    check_metric(metric, records, headline)
    with pytest.raises(ScoreInputError, match=rf"`headline` must be one of .*{headline}.*, but is 'none'"):
        check_metric(metric, records, "none")


def test_a_metric_of_other_records_is_refused() -> None:
    with pytest.raises(
        ScoreInputError,
        match=r"'caption' scores 'caption' and 'conversation'\. Take 'anls' or 'exact' or 'gqa' or 'relaxed' or 'vqa'",
    ):
        check_metric("caption", QUESTIONS)


def test_records_of_a_derived_type_are_scored_as_their_base_is() -> None:
    class Restored(ImageQA):
        record_type = "restored"

    records = [Restored(id="1", image=IMAGE, image_id="1", question="?", answers=("yes",))]
    check_metric("gqa", records, "accuracy")
    with pytest.raises(ScoreInputError, match="records of type 'restored', but 'caption' scores"):
        check_metric("caption", records)


def asked(*answers: str, name: str = "1") -> ImageQA:
    return ImageQA(id=name, image=IMAGE, image_id="1", question="?", answers=answers)


ONE, TEN = (
    [asked("red", name=str(k)) for k in range(5)],
    [asked(*["red"] * 10, name=str(k)) for k in range(5)],
)


def test_questions_with_one_answer_each_are_scored_by_exact() -> None:
    assert metric_of(ONE) == "exact"
    assert metric_of(TEN) == metric_of([*ONE, *TEN]) == "vqa"
    check_metric("exact", ONE, "accuracy")
    check_metric("exact", TEN)
    films = [VideoQA(id="1", video=IMAGE, media_id="1", question="?", answers=("red",))]
    check_metric("exact", films)
    assert metric_of(films) == "open_ended"


def test_one_record_that_a_metric_cannot_score_is_found_wherever_it_stands() -> None:
    with pytest.raises(ScoreInputError, match=r"1 of 6 records do not fit 'vqa'.*holds 1: 'red'.*`exact`"):
        check_metric("vqa", [*TEN, asked("red", name="odd")])
    with pytest.raises(ScoreInputError, match=r"one answer for the metric 'exact', but 'odd' has 'a', 'b'"):
        check_metric("exact", [*ONE, asked("a", "b", name="odd")])


@pytest.mark.parametrize(
    ("metric", "records"),
    [
        ("vqa", [*TEN, asked(name="odd")]),
        ("exact", [*ONE, asked(" ", name="odd")]),
        ("caption", [*CAPTIONS, Caption(id="odd", media=IMAGE, media_id="9", captions=("a hat", ""))]),
        ("caption", [*CAPTIONS, Caption(id="odd", media=IMAGE, media_id="9")]),
    ],
    ids=["no answer", "an empty answer", "an empty caption", "no caption"],
)
def test_a_record_without_a_whole_answer_is_named(metric: str, records: list[Record]) -> None:
    with pytest.raises(ScoreInputError, match=r"1 of \d have none or an empty one, such as 'odd'"):
        check_metric(metric, records)


def test_what_is_trained_on_says_what_is_right() -> None:
    assert check_targets([*ONE, asked(name="odd")]) == 1
    assert check_targets(PAIRS) == check_targets(CAPTIONS) == 0
    with pytest.raises(ScoreInputError, match="none of 2 has an answer"):
        check_targets([asked(name="1"), asked(name="2")])
    with pytest.raises(ScoreInputError, match=r"1 of 6 records have an empty one, such as 'odd'"):
        check_targets([*ONE, asked("red", "", name="odd")])
    bare = Retrieval(id="odd", media=IMAGE, media_id="1", text=" ", text_id="1")
    with pytest.raises(ScoreInputError, match=r"1 of 4 records have an empty one, such as 'odd'"):
        check_targets([*PAIRS, bare])


def test_hidden_answers_are_no_fault() -> None:
    check_metric("vqa", [ImageQA(id="1", image=IMAGE, image_id="1", question="?")], "anything")

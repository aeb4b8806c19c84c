from __future__ import annotations

import pytest

from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import vl_adapter_vqa_accuracy, vqa_accuracy
from weft.eval.metrics.vqa_normalise import normalise

TEN_YES = ["yes"] * 10


def score(prediction: str, answers: list[str], **options: str) -> float:
    return vqa_accuracy({1: prediction}, {1: answers}, **options).value


def test_a_capital_and_a_stop_score_nothing_where_all_ten_people_agree() -> None:
    assert score("Yes.", TEN_YES) == 0


def test_a_capital_and_a_stop_are_cleaned_where_people_disagree() -> None:
    assert score("Yes.", ["yes"] * 9 + ["no"]) == 100


def test_number_words_and_digits_are_the_same_answer() -> None:
    assert score("two", ["2"] * 5 + ["two"] * 5) == 100


@pytest.mark.parametrize(
    ("matches", "expected"),
    [(0, 0), (1, 30), (2, 60), (3, 90), (4, 100), (10, 100)],
    ids=lambda value: str(value),
)
def test_each_person_is_left_out_in_turn(matches: int, expected: float) -> None:
    assert score("cat", ["cat"] * matches + [f"dog{i}" for i in range(10 - matches)]) == expected


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("1,000", "1000"),
        ("t-shirt", "t shirt"),
        ("u.s.", "us"),
        ("3.5", "3.5"),
        ("A dog, the cat", "dog cat"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("none", "0"),
        ("10:30", "10:30"),
        ("what?", "what"),
        ("what ?", "what"),
        ("a/b", "b"),
    ],
)
def test_answers_are_cleaned_by_the_official_rules(raw: str, clean: str) -> None:
    assert normalise(raw) == clean


def test_only_the_first_32_full_stops_are_removed() -> None:
    assert normalise("x" + "." * 40) == "x" + "." * 8


def test_line_ends_become_spaces_even_where_people_agree() -> None:
    assert score(" yes\n", TEN_YES) == 100


def test_the_lmms_eval_variant_cleans_the_prediction_always_and_says_so() -> None:
    report = vqa_accuracy({1: "Yes."}, {1: TEN_YES}, variant="lmms-eval")
    assert (report.value, report.variant) == (100, "lmms-eval")


def test_official_annotations_give_groups() -> None:
    reference = {"answers": [{"answer": "yes"}] * 10, "answer_type": "yes/no", "question_type": "is the"}
    report = vqa_accuracy({1: "yes", 2: "no"}, {1: reference, 2: reference})
    assert report.groups["answer_type"]["yes/no"].score == 50
    assert report.groups["question_type"]["is the"].n == 2


def test_extra_axes_are_averaged_too() -> None:
    report = vqa_accuracy(
        {1: "yes", 2: "no"}, {1: TEN_YES, 2: TEN_YES}, groups={"hops": {1: "one", 2: "two"}}
    )
    assert {name: group.score for name, group in report.groups["hops"].items()} == {"one": 100, "two": 0}


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(
        ScoreInputError, match=r"`variant` must be one of lmms-eval, official-vqa-2021, but is 'new'"
    ):
        score("yes", TEN_YES, variant="new")


def test_a_single_reference_is_refused_with_the_metric_to_use() -> None:
    with pytest.raises(
        ScoreInputError, match=r"at least 2 human answers, but that of 1 holds 1.*`exact_accuracy`"
    ):
        score("yes", ["yes"])


def test_a_reference_that_is_one_string_is_refused() -> None:
    with pytest.raises(ScoreTypeError, match="must be a list of answers"):
        vqa_accuracy({1: "yes"}, {1: "yes"})


def test_a_prediction_that_is_no_text_is_refused() -> None:
    with pytest.raises(ScoreTypeError, match=r"must be a string, but 1 are not: 1 \(the first is a int: "):
        vqa_accuracy({1: 2}, {1: TEN_YES})  # type: ignore[dict-item]


# Scores of `VQAEvaluator.evaluate_raw` in VL-T5/src/vqa_data.py of ylsung/VL_adapter at 545fcbb, run on each case.
@pytest.mark.parametrize(
    ("prediction", "answers", "expected"),
    [
        ("Yes.", TEN_YES, 100),
        ("yes", ["Yes."] * 10, 0),
        ("two", ["2"] * 4 + ["two"] * 6, 100),
        ("The dogs", ["dogs"] * 2 + ["the dogs"] * 8, 60),
        ("U.S.", ["us"] + ["U.S."] * 9, 30),
        ("t-shirt", ["t-shirt"] * 5 + ["t shirt"] * 2 + ["tee"] * 3, 100),
        ("blue", [" blue"] * 9 + ["blue"], 30),
        ("No", ["No"] * 9 + ["no"], 30),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_evaluator_of_vl_adapter_scores_as_its_code_does(
    prediction: str, answers: list[str], expected: float
) -> None:
    report = vl_adapter_vqa_accuracy({1: prediction}, {1: answers})
    assert (report.value, report.metric) == (expected, "vl_adapter_vqa_accuracy")

from __future__ import annotations

from typing import Any

import pytest

from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import gqa_accuracy, nlvr2_accuracy, nlvr_accuracy


def question(answer: str, **more: Any) -> dict[str, Any]:
    types = {"structural": "verify", "semantic": "attr", "detailed": "verifyAttr"}
    return {"answer": answer, "isBalanced": True, "types": types, "groups": {"global": None}} | more


def test_a_capital_letter_is_wrong_in_gqa() -> None:
    assert gqa_accuracy({"1": "Yes"}, {"1": "yes"}).value == 0


def test_plain_answers_leave_what_they_cannot_tell_unavailable() -> None:
    scores = gqa_accuracy({"1": "yes"}, {"1": "yes"}).scores
    assert scores["accuracy"] == 100
    assert {name for name, value in scores.items() if value is None} == {
        "binary", "open", "consistency", "validity", "plausibility", "distribution",
    }  # fmt: skip


def test_what_is_unavailable_has_a_reason() -> None:
    report = gqa_accuracy({"1": "yes"}, {"1": "yes"})
    assert set(report.reasons) == {name for name, value in report.scores.items() if value is None}
    assert "consistency: not available: switched off; `consistency` 'known' or 'all'" in str(report)
    assert report.to_dict()["reasons"]["validity"] == "it needs `choices`, the official choices file"
    known = gqa_accuracy({"1": "yes"}, {"1": question("yes")}, consistency="known")
    assert known.reasons["consistency"].startswith("no question with a right answer has `entailed` questions")
    assert known.reasons["open"] == "no question is open"


def test_unbalanced_questions_count_for_consistency_only() -> None:
    references = {
        "1": question("yes", entailed=["2", "3", "1"]),
        "2": question("no", isBalanced=False),
        "3": question("no", isBalanced=False),
    }
    report = gqa_accuracy({"1": "yes", "2": "no", "3": "yes"}, references, consistency="all")
    assert (report.value, report.scores["consistency"], report.n) == (100, 50, 1)


def test_consistency_over_all_needs_every_entailed_question() -> None:
    references = {"1": question("yes", entailed=["2"])}
    with pytest.raises(
        ScoreInputError, match=r"question '1' entails 1 that have no reference or prediction: '2'"
    ):
        gqa_accuracy({"1": "yes"}, references, consistency="all")
    report = gqa_accuracy({"1": "yes"}, references, consistency="known")
    assert report.scores["consistency"] is None
    assert "leaves out 1 entailed" in report.notes[0]


def test_validity_of_common_questions_looks_at_three_words() -> None:
    common = {"structural": "query", "semantic": "attr", "detailed": "comparativeCommon"}
    references = {"1": question("color", types=common), "2": question("yes")}
    choices = {
        "1": {"valid": ["red"], "plausible": ["red"]},
        "2": {"valid": ["yes", "no"], "plausible": ["yes"]},
    }
    scores = gqa_accuracy({"1": "shape", "2": "no"}, references, choices=choices).scores
    assert (scores["validity"], scores["plausibility"]) == (100, 50)


def test_missing_choices_are_refused() -> None:
    with pytest.raises(
        ScoreInputError, match="`choices` must hold every balanced question, but 1 are missing: '1'"
    ):
        gqa_accuracy({"1": "yes"}, {"1": question("yes")}, choices={})


def test_a_file_without_balanced_questions_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="at least one balanced question, but all 1"):
        gqa_accuracy({"1": "yes"}, {"1": question("yes", isBalanced=False)})


def test_a_question_without_answer_is_refused() -> None:
    with pytest.raises(
        ScoreInputError, match="must be an answer or hold `answer`, but one holds only 'question'"
    ):
        gqa_accuracy({"1": "yes"}, {"1": {"question": "Is it?"}})


def test_distribution_is_zero_for_the_gold_answers() -> None:
    references = {
        str(i): question(answer, groups={"global": "g"}) for i, answer in enumerate(["a", "a", "b"])
    }
    assert gqa_accuracy({"0": "a", "1": "a", "2": "b"}, references).scores["distribution"] == 0
    assert gqa_accuracy({"0": "a", "1": "a", "2": "a"}, references).scores["distribution"] == pytest.approx(
        0.015
    )


@pytest.mark.parametrize(("label", "prediction"), [("True", "true"), ("False", False), (True, "TRUE")])
def test_nlvr2_labels_ignore_case(label: str | bool, prediction: str | bool) -> None:
    assert nlvr2_accuracy({"dev-1-0-0": prediction}, {"dev-1-0-0": label}).value == 100


def test_nlvr2_groups_by_everything_but_the_third_field() -> None:
    labels = {"dev-1-0-0": "True", "dev-1-1-0": "True", "dev-1-0-1": "True", "dev-2-0-0": "True"}
    judged = labels | {"dev-1-1-0": "False"}
    scores = nlvr2_accuracy(judged, labels).scores
    assert (scores["accuracy"], scores["consistency"]) == (75, pytest.approx(200 / 3))


def test_nlvr_groups_by_the_first_field() -> None:
    labels = {"7-0-0": "true", "7-0-1": "true", "8-0-0": "false"}
    scores = nlvr_accuracy(labels | {"7-0-1": "false"}, labels).scores
    assert scores["consistency"] == 50


def test_sentences_may_be_named_explicitly() -> None:
    labels = {"a": True, "b": True}
    report = nlvr2_accuracy({"a": True, "b": False}, labels, sentences={"a": "s", "b": "s"})
    assert report.scores["consistency"] == 0
    with pytest.raises(
        ScoreInputError, match="`sentences` must name the sentence of every id, but 1 are missing: 'b'"
    ):
        nlvr2_accuracy({"a": True, "b": False}, labels, sentences={"a": "s"})


def test_an_identifier_with_too_few_fields_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="must read split-set-pair-sentence, but one is 'dev-1'"):
        nlvr2_accuracy({"dev-1": "true"}, {"dev-1": "true"})


def test_a_judgement_that_is_a_number_is_refused() -> None:
    with pytest.raises(
        ScoreTypeError,
        match=r"must be 'true', 'false' or a boolean, but 1 are not: 'dev-1-0-0' \(the first is a float",
    ):
        nlvr2_accuracy({"dev-1-0-0": 0.7}, {"dev-1-0-0": "true"})  # type: ignore[dict-item]


def test_a_right_pair_after_a_wrong_one_makes_no_sentence_consistent() -> None:
    truth = {"dev-1-0-0": "True", "dev-1-1-0": "False"}
    for wrong, right in (("dev-1-0-0", "dev-1-1-0"), ("dev-1-1-0", "dev-1-0-0")):
        said = {key: truth[key] if key == right else str(truth[key] != "True") for key in (wrong, right)}
        assert nlvr2_accuracy(said, truth).scores == {"accuracy": 50.0, "consistency": 0.0}

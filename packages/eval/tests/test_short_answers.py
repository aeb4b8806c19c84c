"""`relaxed_accuracy` and `anls` against values worked out from their published definitions by hand."""

from __future__ import annotations

import pytest

from weft.eval.errors import ScoreInputError
from weft.eval.metrics import anls, relaxed_accuracy


@pytest.mark.parametrize(
    ("said", "right", "counts"),
    [
        ("95", "100", True),
        ("105", "100", True),
        ("94.9", "100", False),
        ("105.1", "100", False),
        ("-95", "-100", True),
        ("95", "-100", False),
        ("12%", "0.12", True),
        ("12%", "12", False),
        ("12.5 %", "12%", True),
        ("0", "0", True),
        ("0.0", "0", False),
        ("0.01", "0", False),
        ("1e3", "1000", True),
        ("2,000", "2000", False),
        ("Red", "red", True),
        (" red ", "red", True),
        ("red.", "red", False),
        ("nan", "5", False),
        ("inf", "5", False),
        ("five", "5", False),
    ],
)
def test_a_number_within_five_per_cent_counts_and_text_counts_without_case(said, right, counts):
    assert relaxed_accuracy({1: said}, {1: right}).value == 100 * counts


def test_the_relaxed_accuracy_is_the_share_that_counts():
    report = relaxed_accuracy({1: "95", 2: "94", 3: "Red"}, {1: "100", 2: "100", 3: "red"})
    assert report.scores == {"accuracy": pytest.approx(200 / 3)}
    assert report.per_sample == {1: 100.0, 2: 0.0, 3: 100.0}


@pytest.mark.parametrize(
    ("said", "right", "similarity"),
    [
        ("coca cola", ["coca cola"], 1.0),
        ("Coca  COLA ", ["coca cola"], 1.0),
        ("cocacola", ["coca cola"], 1 - 1 / 9),
        ("coca coal", ["coca cola"], 1 - 2 / 9),
        ("kitten", ["sitting"], 1 - 3 / 7),
        ("ab", ["ax"], 0.5),
        ("abc", ["axy"], 0.0),
        ("ab", ["abcde"], 0.0),
        ("abc", ["abcdef"], 0.5),
        ("", ["a"], 0.0),
        ("coca", ["pepsi", "cola", "coca cola co"], 0.75),
        ("été", ["ete"], 0.0),
    ],
)
def test_an_answer_scores_its_similarity_to_the_nearest_right_one(said, right, similarity):
    report = anls({1: said}, {1: right})
    assert report.value == pytest.approx(100 * similarity)
    assert report.headline == "anls"


def test_the_score_is_the_mean_over_questions():
    assert anls({1: "cola", 2: "no"}, {1: ["cola"], 2: ["a long answer"]}).value == 50.0


def test_a_question_without_a_right_answer_is_refused():
    with pytest.raises(ScoreInputError, match="at least one answer, but that of 1 is empty"):
        anls({1: "a"}, {1: []})

from __future__ import annotations

import csv
import inspect
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from weft.core.few_shot import FewShotHead, TipAdapter
from weft.core.few_shot.selection import TestSelectionWarning
from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import (
    calibration,
    didemo_localisation,
    harmonic_mean,
    multiple_choice_accuracy,
    open_ended_accuracy,
    over_seeds,
    top1_accuracy,
)
from weft.eval.metrics.few_shot import domain_shift, restricted_predictions


def test_options_that_were_never_shuffled_are_pointed_out() -> None:
    gold = dict.fromkeys(range(40), 3)
    report = multiple_choice_accuracy(gold, gold)
    assert "every right answer is option 3: shuffle the options" in report.notes[0]


def test_how2qa_files_need_shuffling_and_then_a_constant_guess_is_chance(realdata: Path) -> None:
    path = next((realdata / "ych133+How2R-and-How2QA").rglob("*QA*val*.csv"))
    with path.open(encoding="utf-8") as file:
        rows = len(list(csv.reader(file)))
    last = dict.fromkeys(range(rows), 3)
    assert multiple_choice_accuracy(last, last).notes
    places = np.random.default_rng(0).integers(4, size=rows)
    shuffled = multiple_choice_accuracy(last, dict(enumerate(places.tolist())))
    assert shuffled.value == pytest.approx(25, abs=3)
    assert shuffled.notes == ()


def test_multiple_choice_has_groups_and_no_class_axis() -> None:
    report = multiple_choice_accuracy({1: 0, 2: 1}, {1: 0, 2: 0}, groups={"show": {1: "a", 2: "b"}})
    assert report.scores == {"accuracy": 50}
    assert set(report.groups) == {"show"}


@pytest.mark.parametrize("option", ["0", True, 0.5], ids=repr)
def test_an_option_that_is_no_number_is_refused(option: object) -> None:
    with pytest.raises(ScoreTypeError, match="must be the number of an option, but 1 are not: 1"):
        multiple_choice_accuracy({1: option}, {1: 0})  # type: ignore[dict-item]


def test_answers_outside_the_vocabulary_count_as_wrong_and_are_counted() -> None:
    report = open_ended_accuracy({1: "cat", 2: "emu"}, {1: "cat", 2: "emu"}, vocabulary=["cat"])
    assert report.value == 50
    assert report.notes == ("1 of 2 right answers lie outside the vocabulary and count as wrong",)
    assert open_ended_accuracy({1: "cat"}, {1: "cat"}).notes == ()


def test_an_empty_vocabulary_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="`vocabulary` must hold at least one answer"):
        open_ended_accuracy({1: "a"}, {1: "a"}, vocabulary=[])


def test_localisation_follows_the_official_formulas(realdata: Path) -> None:
    data = json.loads(
        (realdata / "LisaAnne+LocalizingMoments/data/val_data.json").read_text(encoding="utf-8")
    )
    moments = [(first, last) for first in range(6) for last in range(first, 6)]
    generator = np.random.default_rng(0)
    ranked = {i: [moments[j] for j in generator.permutation(len(moments))] for i in range(len(data))}
    ious, ranks = [], []
    for i, item in enumerate(data):
        best = ranked[i][0]
        overlaps = []
        for first, last in item["times"]:
            inside = len(set(range(best[0], best[1] + 1)) & set(range(first, last + 1)))
            # The official union spans from the earliest to the latest step, gaps included.
            overlaps.append(inside / (max(best[1], last) + 1 - min(best[0], first)))
        ious.append(np.mean(np.sort(overlaps)[-3:]))
        places = [ranked[i].index(tuple(moment)) + 1 for moment in item["times"]]
        ranks.append(np.mean(np.sort(places)[:3]))
    report = didemo_localisation(ranked, {i: item["times"] for i, item in enumerate(data)})
    assert report.value == np.mean(ious)
    assert report.scores["rank1"] == np.mean(np.array(ranks) <= 1)
    assert report.scores["rank5"] == np.mean(np.array(ranks) <= 5)


def test_a_careless_fourth_annotation_does_not_count() -> None:
    report = didemo_localisation({1: [(0, 0), (5, 5)]}, {1: [(0, 0), (0, 0), (0, 0), (5, 5)]})
    assert report.scores == {"miou": 1, "rank1": 1, "rank5": 1}


def test_a_moment_that_was_not_ranked_is_refused() -> None:
    with pytest.raises(ScoreInputError, match=r"that of 1 lacks \(2, 2\) among its 1"):
        didemo_localisation({1: [(0, 0)]}, {1: [(2, 2)]})


def test_calibration_of_a_known_table() -> None:
    confidences = {1: 0.9, 2: 0.9, 3: 0.1, 4: 0.0}
    report = calibration(confidences, {1: True, 2: False, 3: False, 4: False}, bins=10)
    assert report.scores["ece"] == pytest.approx((2 * 0.4 + 2 * 0.05) / 4)
    assert report.scores["mce"] == pytest.approx(0.4)
    assert report.scores["brier"] == pytest.approx((0.01 + 0.81 + 0.01 + 0) / 4)
    assert [(edge, group.n) for edge, group in report.groups["accuracy"].items()] == [
        ("0.100", 2),
        ("0.900", 2),
    ]


@pytest.mark.parametrize("confidence", [1.2, -0.1, float("nan")])
def test_confidences_that_are_no_probabilities_are_refused(confidence: float) -> None:
    with pytest.raises(ScoreInputError, match=r"must lie in 0\.\.1, but 1 do not: 1"):
        calibration({1: confidence}, {1: True})


def test_calibration_needs_a_bin() -> None:
    with pytest.raises(ScoreInputError, match="`bins` must be at least 1, but is 0"):
        calibration({1: 0.5}, {1: True}, bins=0)


def test_seeds_are_summarised_with_the_sample_deviation() -> None:
    reports = {seed: top1_accuracy({1: seed % 2}, {1: 1}) for seed in (3, 1, 2)}
    summary = over_seeds(reports)
    assert summary.seeds == (1, 2, 3)
    assert summary.mean == pytest.approx(200 / 3)
    assert summary.std == pytest.approx(57.735, abs=1e-3)
    assert over_seeds({1: reports[1]}).std is None
    mixed = {1: reports[1], 2: open_ended_accuracy({1: "a"}, {1: "a"})}
    with pytest.raises(ScoreInputError, match="must hold one metric in one variant, but holds 2"):
        over_seeds(mixed)


def test_the_harmonic_mean_is_zero_when_either_side_is() -> None:
    assert harmonic_mean(0, 50) == 0
    with pytest.raises(ScoreInputError, match="must be at least 0, but are -1 and 2"):
        harmonic_mean(-1, 2)


def test_a_model_chooses_among_the_classes_of_the_shifted_set_only() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.0, 0.2, 0.8]])
    assert restricted_predictions(scores, ["a", "b"], {1, 2}) == {"a": 1, "b": 2}
    with pytest.raises(ScoreInputError, match=r"`classes` must lie in 0\.\.2, but reach from 1 to 7"):
        restricted_predictions(scores, ["a", "b"], {1, 7})
    with pytest.raises(ScoreInputError, match="one id per sample and at least one class"):
        restricted_predictions(scores, ["a"], {1})


def test_domain_shift_averages_the_targets_only() -> None:
    table = domain_shift(({1: 0}, {1: 0}), {"sketch": ({1: 0}, {1: 1}), "v2": ({1: 0}, {1: 0})})
    assert table == {"source": 100, "sketch": 0, "v2": 100, "mean": 50}
    with pytest.raises(ScoreInputError, match="`targets` must hold at least one data set"):
        domain_shift(({1: 0}, {1: 0}), {})


def test_a_head_takes_the_test_set_for_its_search_only_where_the_caller_says_so() -> None:
    # Tip-Adapter-F's code keeps the best epoch of the test set without a word.
    taken = {
        name
        for method in (FewShotHead.fit, FewShotHead.search, FewShotHead.calibrate)
        for name in inspect.signature(method).parameters
    }
    assert not [name for name in taken if "test" in name]
    torch.manual_seed(0)
    weights = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
    features = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    labels = torch.arange(3).repeat(2)
    with pytest.warns(TestSelectionWarning, match="chooses epochs and hyper-parameters on the test set"):
        head = TipAdapter(weights).fit(features, labels, (features, labels), selected_on="paper")
    assert head.selected_on == "paper"
    assert TipAdapter(weights).fit(features, labels, (features, labels)).selected_on == "validation"

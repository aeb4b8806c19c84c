from __future__ import annotations

import numpy as np
import pytest

from weft.eval.errors import ScoreInputError
from weft.eval.metrics import ScoreReport, bootstrap_interval, paired_test, retrieval_recall, top1_accuracy
from weft.eval.metrics.significance import bootstrap_aggregate


def report(correct: int, of: int = 400, offset: int = 0) -> ScoreReport:
    references = dict.fromkeys(range(of), 1)
    return top1_accuracy({i: int((i + offset) % of < correct) for i in range(of)}, references)


def test_the_interval_has_the_width_of_the_binomial() -> None:
    interval = bootstrap_interval(report(240), resamples=2000)
    half = 1.96 * 100 * np.sqrt(0.6 * 0.4 / 400)
    assert interval.score == 60
    assert interval.low == pytest.approx(60 - half, abs=0.6)
    assert interval.high == pytest.approx(60 + half, abs=0.6)
    assert str(bootstrap_interval(report(400))) == "100.00 [100.00, 100.00]"


def test_the_same_seed_gives_the_same_interval() -> None:
    assert bootstrap_interval(report(240), seed=3) == bootstrap_interval(report(240), seed=3)


def test_intervals_do_not_depend_on_the_size_of_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = bootstrap_interval(report(240))
    monkeypatch.setattr("weft.eval.metrics.significance._CHUNK_ELEMENTS", 1000)
    assert bootstrap_interval(report(240)) == whole


def test_corpus_scores_are_aggregated_again_in_every_resample() -> None:
    statistics = np.tile([5, 10], (50, 1))
    interval = bootstrap_aggregate(statistics, lambda counts: float(counts[0] / counts[1]), resamples=50)
    assert (interval.score, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_a_clear_difference_is_significant_and_a_tiny_one_is_not() -> None:
    clear = paired_test(report(300), report(200), resamples=999)
    assert clear.difference == 25
    assert clear.low < 25 < clear.high
    assert (clear.p_value, clear.mark) == (0.001, "**")
    tiny = paired_test(report(201), report(200), resamples=999)
    assert tiny.p_value == 1
    assert tiny.mark == ""


def test_equal_scores_on_other_samples_do_not_differ() -> None:
    result = paired_test(report(200), report(200, offset=100), resamples=499)
    assert result.difference == 0
    assert result.p_value == 1


def test_the_p_value_of_few_differences_is_that_of_the_sign_test() -> None:
    # Six differences of one sign: two of 64 patterns are as extreme.
    result = paired_test(report(206), report(200), resamples=20_000)
    assert result.p_value == pytest.approx(2 / 64, abs=0.004)
    assert result.mark == "*"


def test_reports_that_do_not_match_are_refused() -> None:
    with pytest.raises(ScoreInputError, match="must cover the same samples, but 1 are in one only: 400"):
        paired_test(report(10, of=400), report(10, of=401))
    other = retrieval_recall(np.eye(2), [[0], [1]])
    with pytest.raises(
        ScoreInputError, match=r"must share `metric`.* 'top1_accuracy' and 'retrieval_recall'"
    ):
        paired_test(report(10), other)


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(
        ScoreInputError, match="needs samples >= 1, `resamples` >= 1 and 0 < `confidence` < 1"
    ):
        bootstrap_interval(report(10), confidence=95)
    bare = ScoreReport("m", "v", "s", {"s": 1.0}, {"s": "percent"}, 1)
    with pytest.raises(ScoreInputError, match="`report` must hold per-sample scores, but m has none"):
        bootstrap_interval(bare)

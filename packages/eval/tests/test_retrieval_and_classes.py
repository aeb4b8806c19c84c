from __future__ import annotations

import numpy as np
import pytest

from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import retrieval_from_features, retrieval_recall, top1_accuracy
from weft.eval.metrics.retrieval import mean_over_folds


def test_equal_similarities_earn_nothing_at_rank_one() -> None:
    scores = retrieval_recall(np.ones((4, 4)), [[0], [1], [2], [3]]).scores
    assert (scores["i2t_R@1"], scores["t2i_R@1"], scores["i2t_MedR"]) == (0, 0, 4)


def test_equal_similarities_may_count_as_the_middle_of_the_tie() -> None:
    scores = retrieval_recall(np.ones((5, 5)), [[i] for i in range(5)], ties="expected").scores
    assert (scores["i2t_MeanR"], scores["t2i_MeanR"]) == (3, 3)


def test_any_of_five_captions_counts_from_image_to_text() -> None:
    similarity = np.zeros((2, 4))
    similarity[0] = [0.1, 0.9, 0.5, 0.2]
    similarity[1] = [0.1, 0.2, 0.3, 0.8]
    scores = retrieval_recall(similarity, [[0, 1], [2, 3]], ks=(1,)).scores
    assert scores["i2t_R@1"] == 100
    assert scores["t2i_R@1"] == 50


def test_own_texts_of_equal_score_do_not_count_against_the_image() -> None:
    assert retrieval_recall(np.array([[1.0, 1.0, 0.0]]), [[0, 1, 2]], ks=(1,)).scores["i2t_R@1"] == 100


def test_ranks_agree_with_sorting_where_nothing_ties() -> None:
    rng = np.random.default_rng(0)
    similarity = rng.normal(size=(37, 37))
    report = retrieval_recall(similarity, [[i] for i in range(37)], ks=(1, 5, 10))
    order = (-similarity).argsort(axis=1).argsort(axis=1)
    ranks = order[np.arange(37), np.arange(37)] + 1
    columns = (-similarity).argsort(axis=0).argsort(axis=0)[np.arange(37), np.arange(37)] + 1
    assert report.scores["i2t_MeanR"] == ranks.mean()
    assert report.scores["i2t_MedR"] == np.median(ranks)
    assert report.scores["t2i_R@5"] == 100 * (columns <= 5).mean()
    assert report.scores["rsum"] == sum(
        100 * (side <= k).mean() for side in (ranks, columns) for k in (1, 5, 10)
    )


def test_features_in_chunks_score_as_the_whole_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    images, texts = rng.normal(size=(11, 4)), rng.normal(size=(33, 4))
    own = [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(11)]
    whole = retrieval_recall(images @ texts.T, own).scores
    monkeypatch.setattr("weft.eval.metrics.retrieval._CHUNK_ELEMENTS", 100)
    assert retrieval_from_features(images, texts, own).scores == whole


def test_folds_are_averaged() -> None:
    best = retrieval_recall(np.eye(3), [[0], [1], [2]])
    worst = retrieval_recall(-np.eye(3), [[0], [1], [2]])
    means = mean_over_folds([best, worst])
    assert (means["i2t_R@1"], means["i2t_MeanR"]) == (50, 2)
    with pytest.raises(ScoreInputError, match="`reports` must hold at least one fold"):
        mean_over_folds([])


def test_nan_is_refused() -> None:
    with pytest.raises(ScoreInputError, match=r"must not hold NaN, but rows from 0 do \(1 values\)"):
        retrieval_recall(np.array([[1.0, np.nan], [0.0, 1.0]]), [[0], [1]])


@pytest.mark.parametrize(
    ("similarity", "own", "message"),
    [
        (np.ones(3), [[0]], r"shape \(images, texts\)"),
        (np.ones((2, 2)), [[0]], r"one entry per image \(2\), but has 1"),
        (np.ones((2, 2)), [[0], [0]], "image 1 has 0"),
        (np.ones((2, 2)), [[0], [7]], "image 1 has 7"),
        (np.ones((2, 3)), [[0], [1]], "1 texts have none: 2"),
    ],
    ids=["one-dimensional", "too few", "shared", "out of range", "orphan"],
)
def test_positives_that_do_not_fit_are_refused(
    similarity: np.ndarray, own: list[list[int]], message: str
) -> None:
    with pytest.raises(ScoreInputError, match=message):
        retrieval_recall(similarity, own)


def test_features_of_two_sizes_are_refused() -> None:
    with pytest.raises(
        ScoreInputError, match=r"\(images, size\) and \(texts, size\), but have \(2, 3\) and \(2, 4\)"
    ):
        retrieval_from_features(np.ones((2, 3)), np.ones((2, 4)), [[0], [1]])


def test_image_ids_must_be_distinct() -> None:
    with pytest.raises(
        ScoreInputError, match="must hold 2 distinct ids, one per image, but holds 1 distinct of 2"
    ):
        retrieval_recall(np.eye(2), [[0], [1]], image_ids=["a", "a"])


def test_mean_per_class_weighs_classes_equally() -> None:
    report = top1_accuracy({1: 0, 2: 0, 3: 0, 4: 0}, {1: 0, 2: 0, 3: 0, 4: 1})
    assert (report.scores["accuracy"], report.scores["mean_per_class"]) == (75, 50)
    assert top1_accuracy({1: np.int64(3)}, {1: 3}).value == 100


@pytest.mark.parametrize("label", [0.5, None, True], ids=repr)
def test_a_label_that_is_neither_name_nor_number_is_refused(label: object) -> None:
    with pytest.raises(ScoreTypeError, match="must be a class name or an integer"):
        top1_accuracy({1: label}, {1: 0})  # type: ignore[dict-item]


def test_names_and_numbers_do_not_mix() -> None:
    with pytest.raises(ScoreTypeError, match="must both hold class names or both hold integers"):
        top1_accuracy({1: "0"}, {1: 0})

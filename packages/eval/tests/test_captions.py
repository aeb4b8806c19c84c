from __future__ import annotations

import pytest

from weft.eval.errors import ScoreInputError, ScoreTypeError
from weft.eval.metrics import caption_scores
from weft.eval.metrics.caption import caption_intervals, tokenize
from weft.eval.metrics.caption.cider import DocumentFrequency
from weft.eval.metrics.caption.rouge import _common_length, _positions
from weft.eval.metrics.caption.tokenizer import tokenize_all


@pytest.mark.parametrize(
    ("caption", "tokens"),
    [
        ("A man (smiling)", "a man -lrb- smiling -rrb-"),
        ("", ""),
        ("  ... !", ""),
        ("A man's dog isn't here, can't come.", "a man 's dog is n't here ca n't come"),
        ("Mr. Smith went to the U.S. at 10:30am", "mr. smith went to the u.s. at 10:30 am"),
        ("no. 5 says no.", "no. 5 says no"),
        ("a t-shirt, 1,000 people; $5.00 and/or 50%", "a t-shirt 1,000 people $ 5.00 and/or 50 %"),
        ("I'm gonna eat M&Ms at 2 1/2 o'clock", "i 'm gon na eat m&m s at 2\xa01/2 o'clock"),
        ("“quoted” don’t — wait…", "quoted do n't wait"),
        ("14'34 5'6\" ½", "14 '34 5 6 1/2"),
        ("line\nend", "line end"),
        ("it's 'tis cannot", "it 's 't is can not"),
        ("I went to wash. Wash. is a state", "i went to wash wash. is a state"),
    ],
)
def test_captions_are_tokenised_as_java_does(caption: str, tokens: str) -> None:
    # Expected: PTBTokenizer of pycocoevalcap 1.2 under OpenJDK 17.
    assert tokenize(caption) == tokens


@pytest.mark.parametrize(
    ("captions", "tokens"),
    [
        (["this is plan b.", "The dog"], ["this is plan b", "the dog"]),
        (["this is plan b.", "the dog"], ["this is plan b.", "the dog"]),
        (["plan b. The dog", ""], ["plan b the dog", ""]),
    ],
    ids=["sentence starts on the next line", "no start", "sentence starts in the same caption"],
)
def test_a_single_letter_keeps_its_stop_unless_a_sentence_follows(
    captions: list[str], tokens: list[str]
) -> None:
    assert tokenize_all(captions) == tokens


def test_an_empty_caption_scores_nothing_and_is_noted() -> None:
    report = caption_scores({1: "", 2: "a dog runs fast"}, {1: ["a cat"], 2: ["a dog runs fast"]})
    assert report.per_sample[1] == 0
    assert report.scores["ROUGE_L"] == 0.5
    assert any("1 captions are empty after tokenising: 1" in note for note in report.notes)


def test_cider_of_one_image_is_zero_with_a_note() -> None:
    report = caption_scores({1: "a cat"}, {1: ["a cat"]})
    assert report.value == 0
    assert any("every weight is 0" in note for note in report.notes)


def test_cider_takes_document_frequencies_from_outside() -> None:
    frequency = DocumentFrequency.of([["a cat"], ["a dog", "a dog"]])
    assert frequency.counts["a",] == 2
    assert frequency.counts["a", "dog"] == 1
    report = caption_scores({1: "a cat"}, {1: "a cat"}, frequency=frequency)
    assert report.value > 0
    assert report.variant == "coco-caption, given document frequencies"


def test_a_zero_four_gram_is_tiny_and_not_zero() -> None:
    scores = caption_scores({1: "a b c d", 2: "x"}, {1: ["a b d c"], 2: ["x"]}).scores
    assert scores["Bleu_4"] is not None
    assert 0 < scores["Bleu_4"] < 1e-3


def test_the_closest_reference_length_decides_brevity_and_the_shorter_wins_a_tie() -> None:
    two = caption_scores({1: "a b c"}, {1: ["a b c d", "a b"]}).scores["Bleu_1"]
    assert two == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [("abcbdab", "bdcaba", 4), ("", "abc", 0), ("abc", "", 0), ("aaa", "aa", 2), ("abc", "abc", 3)],
)
def test_the_common_subsequence_has_the_textbook_length(left: str, right: str, expected: int) -> None:
    assert _common_length(_positions(list(left)), len(left), list(right)) == expected


def test_a_single_text_is_one_reference() -> None:
    assert (
        caption_scores({1: "a", 2: "b"}, {1: "a", 2: "b"}).value
        == caption_scores({1: "a", 2: "b"}, {1: ["a"], 2: ["b"]}).value
    )


def test_percent_is_the_number_that_papers_print() -> None:
    report = caption_scores(
        {1: "a red cat sits", 2: "the dog runs off"}, {1: ["a red cat sits"], 2: ["the dog runs off"]}
    )
    assert report.percent == pytest.approx(1000)


def test_intervals_surround_the_scores_of_the_whole_set() -> None:
    made = {i: f"a cat number {i} sits" for i in range(40)}
    gold = {i: [f"a cat number {i if i % 2 else 'x'} sits here", "the cat"] for i in range(40)}
    intervals = caption_intervals(made, gold, resamples=200)
    scores = caption_scores(made, gold).scores
    assert set(intervals) == set(scores)
    for name, interval in intervals.items():
        assert interval.score == pytest.approx(scores[name])
        assert interval.low < interval.score < interval.high


def test_a_subset_is_said_to_change_cider() -> None:
    report = caption_scores({1: "a"}, {1: ["a"], 2: ["b"]}, subset=True)
    assert report.is_subset
    assert any("differs from that of the whole set" in note for note in report.notes)


def test_an_image_without_captions_is_refused() -> None:
    with pytest.raises(ScoreInputError, match="at least one caption, but that of 1 is empty"):
        caption_scores({1: "a"}, {1: []})


def test_references_that_are_records_are_refused() -> None:
    with pytest.raises(ScoreTypeError, match="must be text or a list of texts"):
        caption_scores({1: "a"}, {1: [{"caption": "a"}]})  # type: ignore[list-item]

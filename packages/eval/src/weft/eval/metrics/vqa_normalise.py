"""The answer clean-up of the official VQA script, quirks included.

The quirks decide published numbers, so none is repaired here:

- a punctuation mark vanishes when it touches a space anywhere in the answer, or when the answer holds a comma
  between digits; otherwise it becomes a space ("t-shirt" turns into "t shirt", "1,000" into "1000");
- the rule for full stops carries a mistyped look-behind, so a stop is kept exactly when a digit follows it;
- the call that removes full stops passes a flag where the count belongs, so only the first 32 are removed;
- some entries of the contraction table hold capitals or map a word to itself and never have an effect; they
  are left out.

Source: GT-Vision-Lab/VQA, PythonEvaluationTools, revision a013f004 (2021).
"""

from __future__ import annotations

import re
from functools import lru_cache

_PUNCTUATION = tuple(';/[]"{}()=+\\_-><@`,?!')
_STOP_NOT_BEFORE_DIGIT = re.compile(r"\.(?!\d)")
_COMMA_BETWEEN_DIGITS = re.compile(r"\d,\d")
_MAX_STOPS_REMOVED = 32
_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = {"none": "0"} | {word: str(value) for value, word in enumerate(_NUMBER_WORDS)}
_ARTICLES = frozenset({"a", "an", "the"})

_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at, letter in enumerate(word) if letter == "'"]


# Every entry of the official table drops exactly one apostrophe of the right form, but for this one,
# which goes the other way.
_CONTRACTIONS = {broken: word for word in _CONTRACTED.split() for broken in _without_one_apostrophe(word)} | {
    "somebody'd": "somebodyd"
}


def strip_whitespace(answer: str) -> str:
    """Turn line ends and tabs into spaces and strip both ends, as done to every answer."""
    return answer.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 17)
def process_punctuation(answer: str) -> str:
    """Remove or blank out punctuation by the two official rules.

    Args:
        answer: An answer without line ends.

    Returns:
        The answer without the listed marks; apostrophes and colons stay.
    """
    between_digits = _COMMA_BETWEEN_DIGITS.search(answer) is not None
    result = answer
    for mark in _PUNCTUATION:
        if mark in answer:
            vanishes = between_digits or mark + " " in answer or " " + mark in answer
            result = result.replace(mark, "" if vanishes else " ")
    return _STOP_NOT_BEFORE_DIGIT.sub("", result, count=_MAX_STOPS_REMOVED)


@lru_cache(maxsize=1 << 17)
def process_digit_article(answer: str) -> str:
    """Lower-case, write number words as digits, drop articles, put back missing apostrophes.

    Args:
        answer: An answer after `process_punctuation`.

    Returns:
        The words joined by single spaces.
    """
    words = [_DIGITS.get(word, word) for word in answer.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalise(answer: str) -> str:
    """Apply both official steps, as done when the ten human answers are not all the same."""
    return process_digit_article(process_punctuation(answer))

"""The caption tokeniser of the COCO evaluation, without Java.

Captions are split as Stanford's Penn-Treebank tokeniser (CoreNLP 3.4.1, one caption a line, lower-cased)
splits them, and punctuation tokens are dropped afterwards. Two consequences surprise people: brackets become
words (`-lrb-`), because lower-casing happens before the drop and the drop list is upper-case; and
contractions split into two words (`is n't`).

The rules below were written against the outputs of the Java program. At each place the longest rule wins, the
earlier one on a tie.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

_PUNCTUATION = frozenset({"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"})

_LETTER = r"[^\W\d_]"
_ALNUM = r"[^\W_]"
_NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
_ENDING = r"(?:s|d|m|ll|ve|re)"

# Words that are written as one and counted as two.
_ASSIMILATED = {
    "cannot": "can not",
    "gonna": "gon na",
    "gotta": "got ta",
    "wanna": "wan na",
    "lemme": "lem me",
    "gimme": "gim me",
    "'tis": "'t is",
    "'twas": "'t was",
}
_NORMALISED = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
}

# A few tokens run over a space: mixed fractions and tags. Inside them the space is written as the joiner
# until the end, then as a no-break space, as the Java program writes it.
_JOINER = "\x00"
_OVER_SPACES = re.compile(r"(?<!\S)\d+ (?=\d+/\d+(?!\S))|</?[A-Za-z][^<>]* [^<>]*>")

# Words that keep their full stop, in any letter case.
_ABBREVIATIONS = """
mr mrs ms dr prof gen col lt sgt capt rev st ste ave blvd rd jr sr etc vs inc ltd co cos corp dept est jan feb
mar apr jun jul aug sep sept oct nov dec mt ft al bros messrs mlle mme gov govs sen sens rep reps hon adm cmdr
comdr maj brig pvt cpl pfc supt insp det pres treas atty attys asst assn assoc univ bldg ct sq ariz calif colo
conn dak fla ga ind kan kans ky mich minn mo mont neb nev okla penn tenn va vt wis wyo ala mon tue tues
wed thu thurs fri alex wm jos cie cf ph ph.d esq elec tel ext intl natl bhd plc seq md mfg pty adj adv drs ens
invt msgr mtg ppte ppty pte ptes ptys rt sfc spc sys wisc
""".split()  # noqa: SIM905  (a hundred words read better as text)
# Place names and others keep it only when they begin with a capital, numbered things before a number.
_CAPITAL_ABBREVIATIONS = ["ark", "del", "ill", "la", "mass", "miss", "ore", "pa", "tex", "wash", "az"]
_NUMBERED = ["no", "nos", "fig", "figs", "ca", "art", "pp", "op", "prop"]

# Before these a single letter with a full stop ends its sentence.
_SENTENCE_STARTS = frozenset(
    """
A About After An As At But He Her Here However If In It Many More Now One Other Our She Since So Some Such
That The Their Then There These They This We What When While Yet You
""".split()  # noqa: SIM905
)
_LETTER_AND_STOP = 2


def _any_case(words: list[str]) -> str:
    return "(?i:" + "|".join(re.escape(word) for word in words) + ")"


def _capital(words: list[str]) -> str:
    return "(?:" + "|".join(f"{word[0].upper()}(?i:{re.escape(word[1:])})" for word in words) + ")"


# A rule's first group is the token; what follows the group must be there, counts for the length of the match,
# and is read again.
_RULES: tuple[str, ...] = (
    rf"({_LETTER}+?)(?i:n['’]t)(?!\w)",
    r"((?i:n['’]t))(?!\w)",
    rf"((?i:['’]{_ENDING}))(?!\w)",
    rf"((?:{_ALNUM}|{_NUMBER})+(?:-(?:{_ALNUM}|{_NUMBER})+)*)(?i:['’]{_ENDING})(?!\w)",
    rf"((?:[dDoOlL]['’])?(?:{_ALNUM}|\d[.:,](?=\d))+(?:[-_](?:[dDoOlL]['’])?(?:{_ALNUM}|\d[.:,](?=\d))+)*)",
    rf"({_ALNUM}+(?:-{_LETTER}+){{0,2}}(?:/{_ALNUM}+(?:-{_LETTER}+){{0,2}}){{1,2}})",
    rf"((?:{_LETTER}\.)+{_LETTER}\.?)(?!{_ALNUM})",
    rf"({_LETTER}\.)(?!\w)",
    rf"((?:{_any_case(_ABBREVIATIONS)}|{_capital(_CAPITAL_ABBREVIATIONS)})\.)(?!\w)",
    rf"({_LETTER}+\.)[,;:]",
    r"([A-Z]+(?:[+&][A-Z]+)+)",
    rf"([-+]?{_NUMBER})",
    r"(['’]\d\d)(?![\d'’]|[:.,]\d)",
    r"(['’]\d0s)",
    r"(\d+|\d+:\d\d)(?i:[ap]m)(?!\w)",
    rf"((?:\d+{_JOINER})?\d+/\d+)",
    r"((?i:['’]n['’]?|['’]em|['’]till?))(?!\w)",
    r"((?i:o['’]clock))",
    r"((?i:ol|somethin|ma['’]a)['’])(?!\w)",
    r"([yY]['’])",
    rf"([A-HJ-XZn]['’]{_LETTER}{{2,}})",
    rf"({_LETTER}+[aeiouyAEIOUY]['’][aeiouA-Z]{_LETTER}*)",
    r"([#@][A-Za-z]\w*)",
    rf"({_ALNUM}[\w.+-]*@\w[\w.-]*\.{_LETTER}+)",
    r"(https?://\S+)",
    rf"(www\.\S+\.{_LETTER}+)",
    r"((?:[\w-]+\.)+(?:com|net|org|edu|gov)(?:/[\w\-./]+)?)",
    rf"({_LETTER}+(?:\.{_LETTER}+)+)",
    r"(<[A-Za-z/][^<>\s]*>)",
    r"(\.\.+)",
    r"(--+)",
    r"(_+)",
    r"([!?]+)",
    r"(``|''|\S)",
)
# Captions of plain words, which most are, need no rules.
_PLAIN = re.compile(r"[A-Za-z ]*[A-Za-z]\.?")
_KEEPING_STOP = frozenset(_ABBREVIATIONS) | frozenset(_CAPITAL_ABBREVIATIONS)
_COMPILED = tuple(re.compile(rule) for rule in _RULES)
_QUOTES = str.maketrans(
    {"“": "``", "”": "''", '"': "''", "‘": "`", "’": "'", "–": "--", "—": "--", "…": "..."}
)


def tokenize(caption: str, following: str = "") -> str:
    """Tokenise one caption.

    Args:
        caption: Any text; line ends count as spaces.
        following: The caption on the next line of the same file. The Java program looks at its first word
            when this one ends in a single letter with a full stop ("plan b."); nothing else depends on it.

    Returns:
        Lower-case tokens joined by single spaces, punctuation dropped; empty for an empty caption.

    Source:
        `PTBTokenizer -preserveLines -lowerCase` and the punctuation list of pycocoevalcap.

    Example:
        >>> tokenize("A man (smiling) isn't here.")
        "a man -lrb- smiling -rrb- is n't here"
    """
    if _PLAIN.fullmatch(caption):
        words = caption.lower().rstrip(".").split()
        if _ASSIMILATED.keys().isdisjoint(words) and not _may_keep_its_stop(caption, words):
            return " ".join(words)
    tokens: list[str] = []
    if "/" in caption or "<" in caption:
        caption = _OVER_SPACES.sub(lambda match: match[0].replace(" ", _JOINER), caption)
    chunks = caption.split()
    for place, chunk in enumerate(chunks):
        split = _split(chunk)
        if chunk[-1] == "." and split:
            inside = place + 1 < len(chunks)
            after = chunks[place + 1] if inside else (following.split(maxsplit=1) or [""])[0]
            split = _before(split, after, same_caption=inside)
        tokens.extend(split)
    return " ".join(tokens).replace(_JOINER, "\xa0")


def tokenize_all(captions: Sequence[str]) -> list[str]:
    """Tokenise the captions of one file, in its order."""
    return [tokenize(caption, after) for caption, after in zip(captions, [*captions[1:], ""], strict=True)]


def _may_keep_its_stop(caption: str, words: list[str]) -> bool:
    return caption.endswith(".") and bool(words) and (len(words[-1]) == 1 or words[-1] in _KEEPING_STOP)


def _before(words: tuple[str, ...], after: str, *, same_caption: bool) -> tuple[str, ...]:
    """Settle a full stop that depends on the word after it."""
    last = words[-1]
    if last in _NUMBERED and same_caption and after[0].isdigit():
        return (*words[:-1], last + ".")
    if len(last) == _LETTER_AND_STOP and last[1] == "." and after in _SENTENCE_STARTS:
        return (*words[:-1], last[0])
    return words


@lru_cache(maxsize=1 << 16)
def _split(chunk: str) -> tuple[str, ...]:
    """Tokens of a text without spaces, punctuation dropped."""
    lowered = chunk.lower()
    if lowered in _ASSIMILATED:
        return tuple(_ASSIMILATED[lowered].split())
    if chunk.isalpha():
        return (lowered,)
    tokens: list[str] = []
    start = 0
    while start < len(chunk):
        longest = max((match for rule in _COMPILED if (match := rule.match(chunk, start))), key=_reach)
        start = longest.end(1)
        word = longest[1].lower()
        if word in _ASSIMILATED:
            tokens.extend(_ASSIMILATED[word].split())
            continue
        word = _NORMALISED.get(word, word)
        if "clock" not in word:
            word = word.translate(_QUOTES)
        if word not in _PUNCTUATION and word.strip(".") and word.strip("-"):
            tokens.append(word)
    return tuple(tokens)


def _reach(match: re.Match[str]) -> int:
    return match.end()

"""How an input is damaged: by bytes, and by words, so that what is structured stays so often enough."""

from __future__ import annotations

import re
from collections.abc import Sequence

_NUMBERS = [
    b"0",
    b"-1",
    b"1e999",
    b"NaN",
    b"0.5",
    b"9" * 5000,
    b"9" * 25,
    b"true",
    b"!!int x",
    b"1_0",
    b"\x7f\xff\xff\xff",
]
_TEXTS = [
    b'""',
    b'"x"',
    b'"\\ud800"',
    b"\xed\xa0\x80",
    "\u2028".encode(),
    b"\xff\xfe",
    b"\x00",
    b"\xe9",
    b'"1"',
    b"~",
]
_PLACES = [
    b"../" * 4,
    b'"/etc/passwd"',
    b'"../x"',
    b'"."',
    b"$HOME",
    b"${WEFT_X}",
    b'"http://a:b@c/"',
    b"%!PS",
]
_SHAPES = [
    b"null",
    b"[]",
    b"{}",
    b"[[]]",
    b'{"a": 1}',
    b"[" * 2000,
    b"*a",
    b"&a ",
    b"<<: ",
    b"- ",
    b"? ",
    b"{a: b}",
]
TOKENS = [b"", b"\n", b"\r", b",", b":", b'"', *_NUMBERS, *_TEXTS, *_PLACES, *_SHAPES]

_WORD = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\w.+-]+|\[[^\[\]]*\]|\{[^{}]*\}')
Edit = tuple[str, int, int, bytes]


def mutated(seed: bytes, edits: Sequence[Edit]) -> bytes:
    """Return a damaged input.

    Args:
        seed: A valid one.
        edits: How to damage it, one after another: kind, place, length and token. `splice` replaces so many bytes,
            `token` a word, a list or an object, and `repeat` writes so many bytes twice.
    """
    for kind, place, length, token in edits:
        at = place % (len(seed) + 1)
        words = list(_WORD.finditer(seed)) if kind == "token" else []
        if words:
            word = words[place % len(words)]
            seed = seed[: word.start()] + token + seed[word.end() :]
        elif kind == "repeat":
            seed = seed[: at + length] + seed[at:]
        else:
            seed = seed[:at] + token + seed[at + length :]
    return seed

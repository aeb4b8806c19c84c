"""Text of others on a terminal, which would obey some of it: names of runs, classes and tasks may hold anything."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any

# Control characters but for tab and newline, and escapes but for those that set a colour or a weight.
_OBEYED = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")


def harmless(text: str) -> str:
    r"""A text whose control characters are written out; colours stay.

    >>> print(harmless("a\x1b]0;b\x07 \x1b[1mc\x1b[0m").replace("\x1b", "ESC"))
    a\x1b]0;b\x07 ESC[1mcESC[0m
    """
    return _OBEYED.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


class _Guarded:
    """A stream of a terminal whose text is made harmless."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        self._stream.write(harmless(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several."""
        for line in lines:
            self.write(line)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Make what is written to standard output inside the `with` block harmless, if it is a terminal."""
    guarded: Any = _Guarded(sys.stdout)
    with redirect_stdout(guarded) if sys.stdout.isatty() else nullcontext():
        yield

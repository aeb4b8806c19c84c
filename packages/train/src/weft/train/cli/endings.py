"""How a command ends that does not end well: with one message, whatever was raised."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from weft.train.cli.console import is_first
from weft.train.errors import causes

_VARIABLE, _TRACE = "--variable", "--traceback"


def of_every_command(words: Sequence[str]) -> tuple[list[str], list[str], bool]:
    """Take out the options that every command has, wherever they are; torchrun gives `weft train` its own words.

    Returns:
        The other words, the variables that recipes may read, and whether a whole trace is wanted.
    """
    rest: list[str] = []
    variables: list[str] = []
    trace = False
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word == _TRACE:
            trace = True
        elif word == _VARIABLE:
            variables.append(next(left, ""))
        elif word.startswith(f"{_VARIABLE}="):
            variables.append(word.partition("=")[2])
        else:
            rest.append(word)
    return rest, variables, trace


def printable(text: str) -> str:
    """A message, which may quote data of others, without credentials or what a terminal cannot show or would obey."""
    from weft.data.sources.credentials import without_secrets

    shown = without_secrets(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c in "\n\t" or c.isprintable() else repr(c)[1:-1] for c in shown)


def interrupt_of(ended: SystemExit) -> KeyboardInterrupt | None:
    """The Ctrl-C that ended a command; typer turns it into a silent exit."""
    return next((found for found in causes(ended) if isinstance(found, KeyboardInterrupt)), None)


def say_interrupted(stop: KeyboardInterrupt) -> None:
    """Say on the first process that Ctrl-C ended the command, and how to resume."""
    if is_first():
        notes = " ".join(getattr(stop, "__notes__", ()))
        sys.stderr.write(f"\nweft: interrupted by Ctrl-C. {notes}".rstrip() + "\n")


def say_defect(error: Exception, *, whole: bool) -> None:
    """Say what an error was that no part of weft expected, with its `whole` trace or with the file that keeps it."""
    trace = printable("".join(traceback.format_exception(error)))
    if whole:
        sys.stderr.write(trace)
        return
    line = next(iter(str(error).strip().split("\n")), "")
    told = f"{type(error).__name__}: {line}" if line else type(error).__name__
    kept = _kept(trace)
    where = (
        f"The whole trace is in {kept}; {_TRACE} prints it." if kept else f"{_TRACE} prints the whole trace."
    )
    sys.stderr.write(
        f"weft: {printable(told)}{_place(error)}. This is a defect of weft or of a library beneath it. {where}\n"
    )


def _place(error: Exception) -> str:
    """Where in weft it was raised, or what weft called last."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if f"{os.sep}weft{os.sep}" in frame.filename:
            name = Path(frame.filename).as_posix().rpartition("/weft/")[2]
            return f" (in weft/{name}, line {frame.lineno})"
    return ""


def _kept(trace: str) -> Path | None:
    try:
        handle, name = tempfile.mkstemp(prefix="weft-trace-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(trace)
        return Path(name)
    except OSError:
        return None

"""Files that a run wrote, as somebody else may have changed them: read, or refused with one message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft.train.errors import RunError, is_mistake


@contextmanager
def as_written(place: Path, advice: str = "Take it from the run again, or run that again.") -> Iterator[None]:
    """Say of a file or a folder that what is done with it inside cannot be done, whatever a library raised.

    Args:
        place: What a run wrote.
        advice: The next step, as a sentence.

    Raises:
        RunError: In the place of any error that is not one of weft; lack of memory says nothing of a file.
    """
    try:
        yield
    except Exception as error:
        if is_mistake(error) or isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__:
            raise
        line = next(iter(str(error).strip().split("\n")), "")
        raise RunError(
            f"{place} must be as weft wrote it, but cannot be read: {type(error).__name__}: {line[:200]}. {advice}"
        ) from error


def read_id(path: Path) -> str:
    """The id of a run in its tracking store, from a file that a run or a sweep wrote.

    Raises:
        RunError: If it holds anything else.
    """
    with as_written(path, "Remove it to start a new run in the store."):
        text = path.read_text(encoding="utf-8").strip()
        if not text.isalnum():
            raise ValueError(f"it holds {text[:40]!r} and no id")
        return text


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file that a run wrote.

    Raises:
        RunError: If it is none.
    """
    with as_written(path):
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise TypeError(f"it holds a {type(values).__name__} and no object")
        return values

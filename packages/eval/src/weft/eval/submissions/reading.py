"""Reading JSON, JSON lines and CSV with errors that name the file and the first offender."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from weft.data.errors import CorruptMediaError, MalformedRecordError
from weft.data.sources.texts import gunzip, lines_of, parse_csv, parse_json
from weft.eval.errors import FormatError, shown


def read_text(path: Path) -> str:
    """Read a text file, unpacking `.gz`.

    Raises:
        FormatError: No such file, no UTF-8 text, or more in it than its limit (`weft.data.sources.limits`).
    """
    if not path.is_file():
        raise FormatError(f"The file must exist, but {str(path)!r} does not. Check the path.")
    try:
        data = path.read_bytes()
        return (gunzip(data, str(path)) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except CorruptMediaError as error:
        raise FormatError(str(error)) from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{str(path)!r} must be UTF-8 text (or its .gz), but is not: {error}. Export it again."
        ) from error


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        FormatError: The file is absent or holds no JSON.
    """
    try:
        return parse_json(read_text(path))
    except MalformedRecordError as error:
        raise FormatError(
            f"{str(path)!r} must hold JSON, but {error}. Check that it is the right file and complete."
        ) from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line.

    Raises:
        FormatError: The file is absent or a line holds no JSON object.
    """
    rows = []
    for number, line in enumerate(lines_of(read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line, one_line=True)
        except MalformedRecordError as error:
            raise FormatError(
                f"{str(path)!r} must hold one JSON object a line, but line {number} does not parse: {error}. "
                "Check that it is the right file and complete."
            ) from error
        if not isinstance(row, dict):
            raise FormatError(
                f"{str(path)!r} must hold one JSON object a line, but line {number} is {row!r}. "
                "Check that it is the right file."
            )
        rows.append(row)
    return rows


def read_pairs(path: Path, key: str, value: str, held: str) -> dict[str, Any]:
    """Two fields of every line of a JSON-lines file, the first as an id; `held` says what a file with both has.

    Raises:
        FormatError: A line lacks a field, or as `by_id`.
    """
    rows = read_json_lines(path)
    bad = [place for place, row in enumerate(rows, start=1) if key not in row or value not in row]
    if bad:
        raise FormatError(
            f"Each line of {str(path)!r} must have `{key}` and `{value}`, but {len(bad)} do not: line {shown(bad)}. "
            f"Use a split with {held}."
        )
    return by_id(((row[key], row[value]) for row in rows), path)


def read_objects(path: Path, key: str, value: str) -> dict[str, Any]:
    """Two fields of every object of a JSON list, the first as an id.

    Raises:
        FormatError: As `records` and `by_id`.
    """
    rows = records(read_json(path), path, (key, value))
    return by_id(((row[key], row[value]) for row in rows), path)


def read_csv(path: Path, columns: int) -> list[list[str]]:
    """Read rows of at least so many cells.

    Raises:
        FormatError: The file is absent, no CSV, or a row is too short.
    """
    rows = []
    try:
        found = parse_csv(read_text(path))
    except MalformedRecordError as error:
        raise FormatError(f"{str(path)!r} must be CSV, but is not: {error}. Export it again.") from error
    for number, row in enumerate(found, start=1):
        if not row:
            continue
        if len(row) < columns:
            raise FormatError(
                f"{str(path)!r} must have {columns} cells a row, but row {number} has {len(row)}: {row!r}. "
                "Separate cells by commas."
            )
        rows.append(row)
    return rows


def records(data: Any, path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """Check that JSON is a list of objects with certain fields.

    Raises:
        FormatError: It is not, or fields are missing; the message counts and names the first.
    """
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise FormatError(
            f"{str(path)!r} must hold a list of objects with {', '.join(needed)}, but holds a "
            f"{type(data).__name__}. Check that it is the right file."
        )
    bad = [place for place, item in enumerate(data) if any(name not in item for name in needed)]
    if bad:
        raise FormatError(
            f"Each object of {str(path)!r} must have {', '.join(needed)}, but {len(bad)} do not: number "
            f"{shown(bad)} (the first has {', '.join(data[bad[0]])}). Rename the fields."
        )
    return data


def by_id(pairs: Iterable[tuple[Any, Any]], path: Path) -> dict[str, Any]:
    """Collect pairs of id and value; ids become text.

    Raises:
        FormatError: An id occurs twice, or there is nothing.
    """
    result: dict[str, Any] = {}
    twice: list[str] = []
    for key, value in pairs:
        if str(key) in result:
            twice.append(str(key))
        result[str(key)] = value
    if twice:
        raise FormatError(
            f"Each id of {str(path)!r} must occur once, but {len(twice)} occur again: {shown(twice)}. "
            "Remove the repeated entries."
        )
    if not result:
        raise FormatError(
            f"{str(path)!r} must hold at least one entry, but is empty. Check how it was written."
        )
    return result

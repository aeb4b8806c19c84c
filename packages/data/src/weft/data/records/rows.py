"""One row of an annotation file, or an object that weft wrote, with its position and checked access to its fields."""

import re
from collections.abc import Collection, Mapping
from math import isfinite
from pathlib import Path
from typing import Any, NoReturn

from weft.data.errors import CorruptMediaError, MalformedRecordError
from weft.data.sources.texts import is_writable, parse_json

_INTEGER = re.compile(r"\s*-?[0-9]+\s*")
_LARGEST = 2**63 - 1


class Row:
    """A value parsed from an annotation file that knows where it came from.

    Args:
        value: The parsed value (mapping or list), or its JSON text if `encoded`.
        file: Address of the file, for messages.
        number: Position in the file, from 1; a text key for files keyed by id.
        encoded: Whether `value` is JSON text that is parsed on first access.
    """

    __slots__ = ("_encoded", "_value", "file", "number")

    def __init__(self, value: Any, file: str, number: int | str, *, encoded: bool = False) -> None:
        self._value, self._encoded, self.file, self.number = value, encoded, file, number

    @property
    def value(self) -> Any:
        """The parsed value."""
        if self._encoded:
            try:
                self._value, self._encoded = parse_json(self._value, one_line=True), False
            except MalformedRecordError as error:
                self.fail(f"must be a JSON object, but {error}")
        return self._value

    def fail(self, rule: str) -> NoReturn:
        """Raise the error for this row.

        Raises:
            MalformedRecordError: Always; names file, row, rule and remedy.
        """
        raise MalformedRecordError(
            f"{self.file}, row {self.number}: {rule}. Repair the row, or pass on_error='skip' to leave such rows out."
        )

    def has(self, key: str) -> bool:
        """Tell whether the row has a field `key` that is not null."""
        return isinstance(self.value, Mapping) and self.value.get(key) is not None

    def columns(self) -> Mapping[str, Any]:
        """Return the named columns of a row of a table.

        Raises:
            MalformedRecordError: If they have no names, or there are more cells than the header has.
        """
        found = self.value
        if not isinstance(found, Mapping):
            self.fail(f"must be an object with named columns, but is {type(found).__name__}")
        if None in found:
            self.fail(
                f"must have as many cells as the header, but has {len(found[None])} more. Quote texts with commas"
            )
        return found

    def field(self, key: str | int) -> Any:
        """Return the field `key` (of a mapping) or column `key` (of a list)."""
        value = self.value
        if isinstance(key, int):
            if not isinstance(value, list | tuple):
                self.fail(f"must be a list, but is {type(value).__name__}")
            if key >= len(value):
                self.fail(f"must have at least {key + 1} columns, but has {len(value)}")
            return value[key]
        if not isinstance(value, Mapping):
            self.fail(f"must be an object with field `{key}`, but is {type(value).__name__}")
        if key not in value:
            self.fail(f"must have the field `{key}`, but has only {', '.join(map(str, value)) or 'none'}")
        return value[key]

    def kept(self, *keys: str) -> dict[str, Any]:
        """Return those of the fields that the row has, as they are."""
        return {key: self.field(key) for key in keys if self.has(key)}

    def text(self, key: str | int, default: str | None = None) -> str:
        """Return a text field; `default` if it is absent."""
        if default is not None and isinstance(key, str) and not self.has(key):
            return default
        value = self.field(key)
        if not isinstance(value, str):
            self.fail(f"`{key}` must be text, but is {value!r}")
        return self._writable(key, value)

    def identity(self, key: str | int) -> str:
        """Return a field that is text or an integer, as text."""
        value = self.field(key)
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.fail(f"`{key}` must be text or an integer, but is {value!r}")
        return self._writable(key, str(value))

    def integer(self, key: str | int) -> int:
        """Return an integer field of at most 64 bits; digits in text are accepted."""
        value = self.field(key)
        if isinstance(value, str) and _INTEGER.fullmatch(value):
            value = int(value) if len(value.strip()) <= len(str(_LARGEST)) + 1 else _LARGEST + 1
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(f"`{key}` must be an integer, but is {value!r}")
        if not -_LARGEST <= value <= _LARGEST:
            self.fail(f"`{key}` must be an integer of at most 64 bits, but has more")
        return value

    def number_of(self, key: str | int) -> float:
        """Return a field that is a number."""
        value = self.field(key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"`{key}` must be a number, but is {value!r}")
        return self._float(key, value)

    def boolean(self, key: str | int) -> bool:
        """Return a truth value: true/false, 1/0, or these words in any case."""
        value = self.field(key)
        word = str(value).lower()
        if word not in ("true", "false", "1", "0"):
            self.fail(f"`{key}` must be true or false, but is {value!r}")
        return word in ("true", "1")

    def items(self, key: str | int) -> list[Any]:
        """Return a list field."""
        value = self.field(key)
        if not isinstance(value, list):
            self.fail(f"`{key}` must be a list, but is {value!r}")
        return value

    def texts(self, key: str | int) -> tuple[str, ...]:
        """Return a list of texts; one text counts as a list of one."""
        value = self.field(key)
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
            self.fail(f"`{key}` must be a text or a list of texts, but is {value!r}")
        return tuple(self._writable(key, text) for text in values)

    def writings(self, key: str | int) -> tuple[str, ...]:
        """Return a list of texts and numbers as texts; one of them counts as a list of one."""
        value = self.field(key)
        return tuple(self.writing(key, item) for item in (value if isinstance(value, list) else [value]))

    def writing(self, key: str | int, value: Any) -> str:
        """Return a value of the row, called `key` in messages, as it is written: a text, or a number, 3.0 as "3"."""
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str):
            return self._writable(key, value)
        infinite = isinstance(value, float) and not isfinite(value)
        if infinite or isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(f"`{key}` must be text or a number, or a list of them, but is {value!r}")
        return str(value)

    def mapping(self, key: str | int) -> dict[str, Any]:
        """Return an object field."""
        value = self.field(key)
        if not isinstance(value, dict):
            self.fail(f"`{key}` must be an object, but is {value!r}")
        return value

    def span(self, key: str | int) -> tuple[float, float]:
        """Return a list of two numbers: first and last second."""
        value = self.items(key)
        if len(value) != 2 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
            self.fail(f"`{key}` must be two numbers in seconds, but is {value!r}")
        return self._float(key, value[0]), self._float(key, value[1])

    def sub(self, value: Any) -> "Row":
        """Return a row for a value inside this one, at the same position."""
        return Row(value, self.file, self.number)

    def subs(self, key: str) -> list["Row"]:
        """Return a row for each value of a list field."""
        return [self.sub(value) for value in self.items(key)]

    def _float(self, key: str | int, value: int | float) -> float:
        try:
            return float(value)
        except OverflowError:
            self.fail(f"`{key}` must be a number of at most 64 bits, but has more")

    def _writable(self, key: str | int, text: str) -> str:
        if not is_writable(text):
            self.fail(
                f"`{key}` must be text that UTF-8 can write, but {text!r} holds half of a surrogate pair"
            )
        return text


class Kept(Row):
    """An object in a file that weft wrote, as somebody else may have changed it; the whole of the file by default."""

    __slots__ = ()

    def __init__(self, value: Any, file: str, number: int | str = "top") -> None:
        super().__init__(value, file, number)
        if not isinstance(value, dict):
            self.fail(f"must be an object, but is {type(value).__name__}")

    def fail(self, rule: str) -> NoReturn:
        """Raise the error for this file.

        Raises:
            CorruptMediaError: Always; names file, place and rule.
        """
        where = "" if self.number == "top" else f", {self.number}"
        raise CorruptMediaError(
            f"{self.file}{where}: {rule}. The file is damaged, or weft did not write it: make it again."
        )

    def count(self, key: str, least: int = 0) -> int:
        """Return a whole number that counts something, not below `least`."""
        value = self.integer(key)
        if value < least:
            self.fail(f"`{key}` must be at least {least}, but is {value}")
        return value

    def counts(self, key: str) -> list[int]:
        """Return a list of whole numbers, none of them negative."""
        values = self.items(key)
        if not all(type(value) is int and 0 <= value < 2**63 for value in values):
            self.fail(f"`{key}` must hold whole numbers from 0 on")
        return values

    def one_of(self, key: str, known: Collection[str]) -> str:
        """Return a text that must be one of some."""
        value = self.text(key)
        if value not in known:
            self.fail(f"`{key}` must be one of {', '.join(sorted(known))}, but is {value!r}")
        return value

    def objects(self, key: str) -> list["Kept"]:
        """Return a list of objects."""
        return [Kept(value, self.file, f"{key} {place}") for place, value in enumerate(self.items(key))]

    def object(self, key: str) -> "Kept":
        """Return an object inside this one."""
        return Kept(self.field(key), self.file, key)


def read_kept(file: Path) -> Kept:
    """Read a file that weft wrote.

    Raises:
        FileNotFoundError: If it is not there.
        CorruptMediaError: If it is no JSON object.
    """
    return parse_kept(file.read_bytes(), str(file))


def parse_kept(data: bytes, name: str) -> Kept:
    """Parse the content of a file that weft wrote; `name` is its address, for messages.

    Raises:
        CorruptMediaError: If it is no JSON object.
    """
    try:
        return Kept(parse_json(data.decode("utf-8")), name)
    except (UnicodeDecodeError, MalformedRecordError) as error:
        raise CorruptMediaError(
            f"{name} must be JSON, but {error}. It is damaged, or weft did not write it: make it again."
        ) from error

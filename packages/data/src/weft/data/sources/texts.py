r"""Text of files that others wrote: lines, JSON, CSV and gzip. What is wrong with it is told in one sentence.

Lines end with `\n`, and with nothing else: U+2028, U+0085 and their like stand within questions and answers.
"""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from typing import Any

from weft.data.errors import CorruptMediaError, MalformedRecordError
from weft.data.sources.limits import check_unpacked, unpacked_limit

_LARGEST_FIELD = 2**31 - 1
_SURROGATE = re.compile("[\ud800-\udfff]")


def lines_of(text: str) -> list[str]:
    r"""Return the lines of a text, without their ends; `\r` goes too where it precedes `\n`.

    >>> lines_of("one\u2028still one\r\ntwo\n")
    ['one\u2028still one', 'two']
    """
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def parse_json(text: str, *, one_line: bool = False) -> Any:
    """Return what a text of JSON holds; where it is one line of a file, its own lines need not be told.

    Raises:
        MalformedRecordError: With what is wrong, as the rest of a sentence, and without the name of the file.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = "" if one_line else f"line {error.lineno} does not parse: "
        raise MalformedRecordError(f"{where}{error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise MalformedRecordError("it is nested too deeply") from error
    except ValueError as error:
        most = sys.get_int_max_str_digits()
        raise MalformedRecordError(f"a whole number in it has more than {most:,} digits") from error


def parse_csv(text: str, delimiter: str = ",") -> list[list[str]]:
    """Return the rows of a text of CSV with its own line ends; cells may be of any length.

    Raises:
        MalformedRecordError: With what is wrong, as the rest of a sentence, and without the name of the file.
    """
    before = csv.field_size_limit(min(len(text) + 1, _LARGEST_FIELD))
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise MalformedRecordError(str(error)) from error
    finally:
        csv.field_size_limit(before)


def gunzip(data: bytes, name: str) -> bytes:
    """Return what a gzip file holds; `name` is what messages call it.

    Raises:
        CorruptMediaError: If it is damaged, or opens to more than its limit; see `weft.data.sources.limits`.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(unpacked_limit(len(data)) + 1)
    except (EOFError, OSError, zlib.error) as error:
        raise CorruptMediaError(f"{name} is not a whole gzip file: {error}. Get it again.") from error
    check_unpacked(len(unpacked), len(data), name)
    return unpacked


def is_writable(value: Any) -> bool:
    r"""Tell whether all texts within a value can be written as UTF-8: JSON can hold one half of a surrogate pair.

    >>> is_writable(["a cat", "\ud83d"])
    False
    """
    if isinstance(value, str):
        return value.isascii() or _SURROGATE.search(value) is None
    if isinstance(value, dict):
        return all(is_writable(key) and is_writable(item) for key, item in value.items())
    return not isinstance(value, list | tuple) or all(map(is_writable, value))

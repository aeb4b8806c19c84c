"""Rows of shards turned back into records, whose types say what each field may hold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from weft.data.errors import InvalidArgumentError
from weft.data.media.reference import MediaRef
from weft.data.records.record import Record, field_types, media_fields, rebuilt
from weft.data.records.rows import Kept

R = TypeVar("R", bound=Record)


def kept_record(kind: type[R], kept: Kept, media: Sequence[MediaRef]) -> R:
    """Return the record of what was kept of it, and of its images and videos, in order.

    Raises:
        CorruptMediaError: If they are not those of such a record.
    """
    known: Any = kind
    checks, needed = _checks(known)
    # A field that came later is absent in older files.
    values = {name: [] for name, (hint, _) in checks.items() if hint.startswith("tuple")} | kept.value
    odd = sorted((values.keys() - checks.keys()) | (needed - kept.value.keys()))
    if odd:
        kept.fail(f"must have the fields of a {kind.__name__}, but lacks or adds {', '.join(odd)}")
    for name, value in values.items():
        hint, fits = checks[name]
        if not fits(value):
            kept.fail(f"`{name}` must be {hint}, but is {value!r}")
    types = field_types(kind)
    single = sum(types[name] is MediaRef for name in media_fields(kind))
    if len(media) < single or (len(media) > single == len(media_fields(kind))):
        kept.fail(f"must have {single} media, but has {len(media)}")
    try:
        return rebuilt(kind, values, media)
    except InvalidArgumentError as error:
        kept.fail(f"must hold a whole record, but {str(error).removesuffix('.')}")


@cache
def _checks(kind: Any) -> tuple[dict[str, tuple[str, Callable[[Any], bool]]], set[str]]:
    """Field to type and check, of a record type, but for the media; and the fields without a default."""
    hints = {name: hint for name, hint in field_types(kind).items() if name not in media_fields(kind)}
    needed = {
        each.name
        for each in fields(kind)
        if each.name in hints and each.default is MISSING and each.default_factory is MISSING
    }
    return {
        name: (hint.__name__ if isinstance(hint, type) else str(hint), _check_of(hint))
        for name, hint in hints.items()
    }, needed


def _check_of(hint: Any) -> Callable[[Any], bool]:
    """What tells whether a parsed value has the type of a field."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is tuple:
        check = _check_of(inner[0])
        return lambda value: isinstance(value, list) and all(map(check, value))
    if origin is Mapping:
        if inner[1] is Any:
            return lambda value: isinstance(value, dict)
        check = _check_of(inner[1])
        return lambda value: isinstance(value, dict) and all(map(check, value.values()))
    if origin is UnionType:
        checks = list(map(_check_of, inner))
        return lambda value: any(check(value) for check in checks)
    # Of JSON, where a truth value is no number and a whole number may stand for any.
    kinds = (int, float) if hint is float else (hint,)
    return lambda value: type(value) in kinds

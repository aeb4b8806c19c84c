"""The faults of a recipe, each with its place, the value and the nearest valid name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from weft.data.errors import near_matches
from weft.train.errors import near


def faults_of(error: ValidationError, recipe: type[BaseModel], tasks: Any = None) -> list[str]:
    """One sentence for each fault of a recipe of a kind, which may misspell one of its tasks."""
    return [_fault(fault, recipe, tasks) for fault in error.errors(include_url=False)]


def listed(name: str, faults: list[str]) -> str:
    """The message of a recipe's error: all its faults at once."""
    lines = "\n".join(f"  - {fault}" for fault in faults)
    return f"{name} has {len(faults)} fault{'s' if len(faults) > 1 else ''}:\n{lines}"


def _fault(fault: Any, recipe: type[BaseModel], tasks: Any) -> str:
    place, kind, value = fault["loc"], fault["type"], fault.get("input")
    where = ".".join(str(word) for word in place)
    if kind == "extra_forbidden":
        return f"{where}: unknown key. {_elsewhere(place, recipe) or near(place[-1], _keys_at(place[:-1], recipe))}"
    if kind == "missing":
        return f"{where}: this key is needed.{_like_named(place, tasks)}"
    message = fault["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "dict_type"):
        message = f"this must be a mapping of keys, but is {value!r}"
    elif kind != "value_error":
        # Rules of our own say the value themselves.
        message = f"{message}, but is {value!r}"
    sentence = message if message.endswith((".", "?", "!")) else f"{message}."
    return f"{where}: {sentence}" if where else sentence


def _like_named(place: tuple[int | str, ...], tasks: Any) -> str:
    """The task that was meant, where an override of a misspelt one has begun another."""
    if place[0] != "tasks" or not isinstance(tasks, Mapping):
        return ""
    alike = near_matches(str(place[1]), [name for name in tasks if name != place[1]], limit=1)
    return f" Did you mean the task {alike[0]!r}?" if alike else ""


def _elsewhere(place: tuple[int | str, ...], recipe: type[BaseModel]) -> str:
    """Where a key of this name is, if it is in another section."""
    places = [
        ".".join((*section, str(place[-1]))) for section, keys in _sections(recipe) if place[-1] in keys
    ]
    return f"Did you mean {' or '.join(map(repr, places))}?" if places else ""


def _sections(
    section: type[BaseModel], at: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Sections under fixed names, with their keys."""
    yield at, section.model_fields
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _sections(field.annotation, (*at, name))


def _keys_at(place: tuple[int | str, ...], recipe: type[BaseModel]) -> list[str]:
    """Keys of the section at a place; names of tasks and numbers of entries lead no deeper."""
    section: type[BaseModel] | None = recipe
    for word in place:
        field = section.model_fields.get(str(word)) if section is not None else None
        if field is not None:
            section = _section(field.annotation)
    return [] if section is None else list(section.model_fields)


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that an annotation is of, holds, or maps names to."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_section, get_args(annotation))), None)

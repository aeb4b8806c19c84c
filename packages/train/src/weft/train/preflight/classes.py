"""The classes of tasks whose pictures are told apart by such, found before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.data.errors import InvalidArgumentError
from weft.eval.evaluate.kinds import kind_of
from weft.eval.readers import Reader
from weft.eval.readers.classes import Classes
from weft.eval.readers.classifying import class_rows
from weft.train.errors import RunError, near
from weft.train.preflight.tasks import TaskData
from weft.train.recipe.sections import TaskSection
from weft.train.recipe.training import Recipe

_CUT = 64  # as other texts are cut that no limit is given for
_LEAST = 2


def is_classified(data: TaskData) -> bool:
    """Whether the records of a task are pictures with classes."""
    return kind_of(next(iter(data.splits.values()))).mode == "classify"


def classes_of(recipe: Recipe, tasks: Mapping[str, TaskData]) -> dict[str, Classes]:
    """Task to its classes, of the tasks that have such.

    Raises:
        RunError: If the classes of a task are not known, or have no names that tell them apart.
    """
    found = {}
    for name, data in tasks.items():
        if is_classified(data):
            section = recipe.tasks[name]
            names = _names(name, section, data)
            said = [section.class_names.get(each, each) for each in names]
            found[name] = Classes.written(names, section.templates, said, section.max_text_tokens or _CUT)
    return found


def check_classes(recipe: Recipe, tasks: Mapping[str, TaskData], reader: Reader) -> None:
    """Refuse classes that a model cannot learn, or that no head is for, and heads that nothing trains.

    Raises:
        RunError: With the first fault.
        ReaderError: If a text about a class is too long.
    """
    known = classes_of(recipe, tasks)
    for name in tasks:
        _check_keys(recipe, name, classified=name in known)
    _check_batches(recipe, tasks, known)
    heads = recipe.backbone.heads
    if heads is not None:
        _check_heads(heads, known)
    if "embed" in reader.abilities and not reader.paired:
        for name, classes in known.items():
            reader.asking(class_rows(name, classes))


def _names(task: str, section: TaskSection, data: TaskData) -> list[str]:
    """The names of a task's classes by label: those of its data set, or of the records of all its splits."""
    first = data.splits.get("train") or next(iter(data.splits.values()))
    try:
        names: list[str] = first.class_names
    except InvalidArgumentError as error:
        raise RunError(f"`tasks.{task}.data` must tell its classes. {error}") from None
    for role, records in data.splits.items():
        for record in records:
            if not 0 <= record.label < len(names) or names[record.label] != record.class_name:
                raise RunError(
                    f"`tasks.{task}.data.{role}` must be of the classes that are trained ({_shown(names)}), but "
                    f"{record.id!r} is {record.class_name!r} with label {record.label}. Take a split of the same "
                    "classes."
                )
    if len(names) < _LEAST:
        raise RunError(
            f"`tasks.{task}.data` must have at least two classes to tell apart, but has {_shown(names)}. Check the "
            "folders, or `classes` among its options."
        )
    said = [section.class_names.get(each, each) for each in names]
    for what, each in (("names", names), ("class_names", said)):
        twice = sorted({one for one in each if each.count(one) > 1})
        if twice:
            raise RunError(
                f"`tasks.{task}` must have a name of its own for each class, but the {what} {_shown(twice)} occur "
                "twice. Rename them in the data, or in `class_names`."
            )
        if not all(map(str.strip, each)):
            raise RunError(f"`tasks.{task}` must have a name for each class, but one of the {what} is empty.")
    unknown = [one for one in section.class_names if one not in names]
    if unknown:
        raise RunError(
            f"`tasks.{task}.class_names` must rename classes of the data, but one is {unknown[0]!r}. "
            f"{near(unknown[0], names)}"
        )
    return names


def _check_keys(recipe: Recipe, name: str, *, classified: bool) -> None:
    """Refuse words for records of another type."""
    section = recipe.tasks[name]
    plain = TaskSection(data=section.data)
    keys: tuple[str, ...] = ("class_names", "templates")
    right = "other records than those of classes"
    if classified:
        keys = ("ask", "system", "prompt", "prompt_at", "learn", "answers")
        right = "records of classes, which `templates` word"
    given = [key for key in keys if getattr(section, key) != getattr(plain, key)]
    if given:
        raise RunError(f"`tasks.{name}.{given[0]}` must be left out for {right}. Leave it out.")
    if classified and section.data.streaming:
        raise RunError(
            f"`tasks.{name}.data.streaming` must be false for records of classes, whose names all have to be known, "
            "but is true. Leave it out."
        )


def _check_batches(recipe: Recipe, tasks: Mapping[str, TaskData], known: Mapping[str, Any]) -> None:
    others = [name for name in tasks if name not in known]
    if known and others and recipe.training.mixing.unit == "mixed":
        raise RunError(
            "`training.mixing.unit` must be 'homogeneous' where some tasks are told apart by classes "
            f"({', '.join(known)}) and others are not ({', '.join(others)}), but is 'mixed'. Leave it out."
        )


def _check_heads(heads: Mapping[str, int], known: Mapping[str, Classes]) -> None:
    for name, classes in known.items():
        count = len(classes.names)
        if heads.get(name) != count:
            raise RunError(
                f"`backbone.heads` must give every task its number of classes, but gives {name!r} "
                f"{heads.get(name, 'none')}, and it has {count}: {_shown(classes.names)}. Set "
                f"backbone.heads.{name}={count}."
            )


def _shown(names: Any) -> str:
    listed = ", ".join(repr(name) for name in names[:5])
    return f"{listed} and {len(names) - 5} more" if len(names) > 5 else listed

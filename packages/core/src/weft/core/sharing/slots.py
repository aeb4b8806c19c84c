"""Slots by name: `shared`, a task's own name, or the names of a group of tasks, such as `gqa+vqa`.

A slot is named after the tasks that were declared to share it, in alphabetical order, whichever of them a model
has. So a checkpoint of four tasks gives one of them alone without renaming anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

from weft.core.errors import ConfigError

SHARED = "shared"  # the one slot of a tensor that all tasks share
_AND = "+"
_TASK_NAME = re.compile(r"[a-z0-9_]+")

Groups = tuple[tuple[str, ...], ...]


def slot_name(task: str, groups: Groups | None) -> str:
    """Name of the slot that a task has where not all tasks share one: its group's, or its own where it is in none."""
    for group in groups or ():
        if task in group:
            return _AND.join(sorted(group))
    return task


def slot_names(tasks: Iterable[str], groups: Groups | None) -> tuple[str, ...]:
    """Names of the slots of tasks, each once, in the order of the tasks.

    >>> slot_names(["nlvr", "vqa", "gqa"], (("vqa", "gqa"), ("nlvr",)))
    ('nlvr', 'gqa+vqa')
    """
    return tuple(dict.fromkeys(slot_name(task, groups) for task in tasks))


def tasks_of(slot: str) -> tuple[str, ...]:
    """The tasks that a slot is named after; none for that of all tasks."""
    return () if slot == SHARED else tuple(slot.split(_AND))


def slot_for(task: str, slots: Iterable[str]) -> str | None:
    """The slot that a task uses, or None if none of them is its own."""
    return next((slot for slot in slots if slot == SHARED or task in tasks_of(slot)), None)


def is_of(slot: str, tasks: Collection[str]) -> bool:
    """Whether a slot serves one of the tasks."""
    return slot == SHARED or any(task in tasks for task in tasks_of(slot))


def is_task_name(name: object) -> bool:
    """Whether a task may be called so."""
    return isinstance(name, str) and _TASK_NAME.fullmatch(name) is not None and name != SHARED


def check_tasks(tasks: Sequence[str] | None) -> tuple[str, ...]:
    """The task names, `("default",)` for None.

    Raises:
        ConfigError: If a name is not `[a-z0-9_]+`, occurs twice or is `shared`, or if there is none.
    """
    names = ("default",) if tasks is None else tuple(tasks)
    if isinstance(tasks, str) or not names:
        raise ConfigError(
            f"`tasks` must be a list of names, but is {tasks!r}. Write for instance ['vqa', 'gqa']."
        )
    for name in names:
        if not is_task_name(name):
            raise ConfigError(
                f"`tasks` must be of lower-case letters, digits and underscores and not 'shared', but one is "
                f"{name!r}. Rename it; it becomes part of the checkpoint's keys."
            )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"`tasks` must be unique, but {name!r} occurs twice. Leave one out.")
    return names

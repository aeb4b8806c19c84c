"""What a part of a unit is shared across, from the words of a recipe: axes, and groups of tasks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, NoReturn, get_args

from pydantic_core import PydanticCustomError

from weft.core.errors import unknown
from weft.core.sharing.slots import Groups, is_task_name

Axis = Literal["task", "modality", "stack", "layer", "block"]
AXES: tuple[Axis, ...] = get_args(Axis)
ALL = "all"

Axes = frozenset[Axis]
NONE: Axes = frozenset()
TASK: Axes = frozenset({"task"})


def read_axes(argument: str, value: object) -> tuple[Axes, Groups | None]:
    """Read `[task, layer]`, or `{task: [[vqa, gqa], [nlvr]], layer: all}` where some tasks share.

    Returns:
        The axes that it is shared across as a whole, and the groups of tasks, if any.

    Raises:
        PydanticCustomError: If an axis is unknown, or the groups make no sense.
    """
    if isinstance(value, Mapping):
        return _by_axis(argument, value)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        fail(
            f"`{argument}` must be a list of axes, but is {value!r}. Write for instance [task, layer], or "
            "{task: [[vqa, gqa], [nlvr]]} where some tasks share."
        )
    return frozenset(_axis(argument, name) for name in names), None


def axes_in_words(axes: Axes, groups: Groups | None) -> Any:
    """What `read_axes` reads, as plain data."""
    if groups is None:
        return sorted(axes)
    return {"task": [list(group) for group in groups], **dict.fromkeys(sorted(axes), ALL)}


def fail(message: str) -> NoReturn:
    """Refuse the words of a policy."""
    raise PydanticCustomError("sharing", "{message}", {"message": message})


def _by_axis(argument: str, value: Mapping[Any, Any]) -> tuple[Axes, Groups | None]:
    axes, groups = set[Axis](), None
    for name, among in value.items():
        axis = _axis(argument, name)
        if among == ALL or among is True:
            axes.add(axis)
        elif axis == "task":
            groups = _groups(f"{argument}.task", among)
        else:
            fail(
                f"`{argument}.{axis}` must be `all`, for only tasks share in groups here, but is {among!r}. Give "
                "ranges of layers, blocks and towers in `sharing.layers`."
            )
    return frozenset(axes), groups


def _groups(argument: str, value: object) -> Groups:
    if (
        not isinstance(value, list | tuple)
        or not value
        or not all(isinstance(group, list | tuple) and group for group in value)
    ):
        fail(
            f"`{argument}` must be a list of groups of tasks, or `all`, but is {value!r}. Write for instance "
            "[[vqa, gqa], [nlvr], [caption]]."
        )
    seen: set[str] = set()
    for name in (name for group in value for name in group):
        if not is_task_name(name):
            fail(
                f"`{argument}` must group names of tasks, which are of lower-case letters, digits and underscores, "
                f"but one is {name!r}. Rename it."
            )
        if name in seen:
            fail(
                f"`{argument}` must put every task into one group, but {name!r} is there twice. Leave it in one of "
                "them."
            )
        seen.add(name)
    return tuple(sorted(tuple(sorted(group)) for group in value))


def _axis(argument: str, name: object) -> Axis:
    if name not in AXES:
        fail(unknown(f"`{argument}`", name, AXES))
    return name

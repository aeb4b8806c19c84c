"""Sharing: across which axes, among which tasks and in which layers each part of a unit is one and the same weight."""

from weft.core.sharing.axes import AXES, NONE, TASK, Axes, Axis
from weft.core.sharing.policy import PRESETS, Rule, Sharing, check_groups
from weft.core.sharing.slots import (
    SHARED,
    Groups,
    check_tasks,
    is_of,
    slot_for,
    slot_name,
    slot_names,
    tasks_of,
)
from weft.core.sharing.words import shared_in_words

__all__ = [
    "AXES",
    "NONE",
    "PRESETS",
    "SHARED",
    "TASK",
    "Axes",
    "Axis",
    "Groups",
    "Rule",
    "Sharing",
    "check_groups",
    "check_tasks",
    "is_of",
    "shared_in_words",
    "slot_for",
    "slot_name",
    "slot_names",
    "tasks_of",
]

"""Sharing: across which axes each part of a unit is one and the same weight.

A unit has parts (`down`, `up`, `rule`, …). Every part has a slot for each distinct combination of the axes it
is not shared across. Two sites, or two tasks, that resolve to one slot share it; no tensor is ever aliased.

| preset | `down` | `up` |
|---|---|---|
| `multiple` | per task | per task |
| `half` | per task | shared across `task` (or the other way round) |
| `single` | shared across `task` | shared across `task` |
| `unified` | shared across `modality` and `stack` | shared across `stack` |

Source: the presets are the schemes of VL-Adapter (Sung et al. 2022, section 3.3) and UniAdapter (Lu et al.
2024).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from weft.core.errors import ConfigError, unknown

Axis = Literal["task", "modality", "stack", "layer", "block"]
AXES: tuple[Axis, ...] = get_args(Axis)
PRESETS = ("single", "multiple", "half", "unified")
SHARED = "shared"  # the one slot of a tensor that all tasks share
_TASK_NAME = re.compile(r"[a-z0-9_]+")

Axes = frozenset[Axis]
NONE: Axes = frozenset()
TASK: Axes = frozenset({"task"})


class Sharing(BaseModel):
    """Which axes each part of a unit is shared across.

    In a recipe it is a preset's name (`single`), a preset with its option (`{preset: half, shared: down}`),
    or the axes of each part (`{down: [task, layer], up: []}`).

    Args:
        parts: Part to the axes it is shared across.
        default: Axes of the parts not named. By default what the unit itself says, which is `task` for most.
        layer_group: Every so many neighbouring layers share (1: each layer its own slot).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: Mapping[str, Axes] = Field(default_factory=dict)
    default: Axes | None = None
    layer_group: int = Field(default=1, ge=1)

    @classmethod
    def single(cls) -> Sharing:
        """One set of weights for all tasks."""
        return cls(default=TASK)

    @classmethod
    def multiple(cls) -> Sharing:
        """Each task its own weights."""
        return cls(default=NONE)

    @classmethod
    def half(cls, shared: Literal["up", "down"] = "up") -> Sharing:
        """One half for all tasks, the other half for each task its own.

        Args:
            shared: The half that all tasks share; VL-Adapter's reported runs share `up`.
        """
        other = {"up": "down", "down": "up"}[shared]
        return cls(parts={shared: TASK, other: NONE})

    @classmethod
    def unified(cls) -> Sharing:
        """One `down` for all modalities, an `up` for each modality."""
        both: Axes = frozenset({"modality", "stack"})
        return cls(parts={"down": both, "up": frozenset({"stack"})}, default=frozenset({"stack"}))

    def axes(self, part: str, *, default: Axes, follows: str | None = None) -> Axes:
        """The axes that a part is shared across.

        Args:
            part: Name of the part.
            default: Axes if neither this policy names the part nor has a default of its own.
            follows: Part whose axes are taken if `part` is not named, such as `up` for the rule of `up`.
        """
        for name in (part, follows):
            if name is not None and name in self.parts:
                return self.parts[name]
        return default if self.default is None else self.default

    @field_validator("parts", mode="before")
    @classmethod
    def _axes_are_known(cls, value: Any) -> Any:
        return {part: _axes(f"sharing.{part}", axes) for part, axes in dict(value).items()}

    @field_validator("default", mode="before")
    @classmethod
    def _default_is_known(cls, value: Any) -> Any:
        return None if value is None else _axes("sharing.default", value)

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _preset(cls, value, {})
        if isinstance(value, Mapping) and "preset" in value:
            options = dict(value)
            return _preset(cls, options.pop("preset"), options)
        if isinstance(value, Mapping) and "parts" not in value:
            known = {"default", "layer_group"}
            parts = {key: item for key, item in value.items() if key not in known}
            return {"parts": parts, **{key: value[key] for key in known & value.keys()}}
        return value

    @model_validator(mode="after")
    def _groups_make_sense(self) -> Sharing:
        everywhere = [*self.parts.values(), *([] if self.default is None else [self.default])]
        if self.layer_group > 1 and everywhere and all("layer" in axes for axes in everywhere):
            raise PydanticCustomError(
                "sharing",
                "`sharing.layer_group` must be 1 where every part is shared across `layer`, but is {value}. "
                "Take `layer` out of a part's axes, or leave the group away.",
                {"value": self.layer_group},
            )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        axes = {"type": "array", "items": {"enum": list(AXES)}, "uniqueItems": True}
        option = {"preset": {"enum": list(PRESETS)}, "shared": {"enum": ["up", "down"]}}
        group = {"layer_group": {"type": "integer", "minimum": 1}}
        return {
            "oneOf": [
                {"enum": list(PRESETS)},
                {
                    "type": "object",
                    "properties": {**option, **group},
                    "required": ["preset"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": group,
                    "not": {"required": ["preset"]},
                    "additionalProperties": axes,
                },
            ]
        }

    @model_serializer
    def to_words(self) -> dict[str, Any]:
        """The policy as plain lists, in the form that a recipe takes."""
        words: dict[str, Any] = {part: sorted(axes) for part, axes in sorted(self.parts.items())}
        if self.default is not None:
            words["default"] = sorted(self.default)
        if self.layer_group != 1:
            words["layer_group"] = self.layer_group
        return words


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
        if not isinstance(name, str) or not _TASK_NAME.fullmatch(name) or name == SHARED:
            raise ConfigError(
                f"`tasks` must be of lower-case letters, digits and underscores and not 'shared', but one is "
                f"{name!r}. Rename it; it becomes part of the checkpoint's keys."
            )
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"`tasks` must be unique, but {name!r} occurs twice. Leave one out.")
    return names


def _preset(cls: type[Sharing], name: object, options: dict[str, Any]) -> Any:
    if name not in PRESETS:
        raise PydanticCustomError("sharing", "{message}", {"message": unknown("`sharing`", name, PRESETS)})
    shared = options.pop("shared", "up")
    layer_group = options.pop("layer_group", 1)
    if options or (shared != "up" and name != "half"):
        known = ["layer_group", "shared"] if name == "half" else ["layer_group"]
        wrong = next(iter(options), "shared")
        raise PydanticCustomError(
            "sharing",
            "{message}",
            {"message": unknown(f"an option of the preset {name!r}", wrong, known)},
        )
    if shared not in ("up", "down"):
        raise PydanticCustomError(
            "sharing", "{message}", {"message": unknown("`sharing.shared`", shared, ("up", "down"))}
        )
    policy = cls.half(shared) if name == "half" else getattr(cls, str(name))()
    return {"parts": dict(policy.parts), "default": policy.default, "layer_group": layer_group}


def _axes(argument: str, value: object) -> Axes:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Iterable):
        raise PydanticCustomError(
            "sharing",
            "`{argument}` must be a list of axes, but is {value}. Write for instance [task, layer].",
            {"argument": argument, "value": repr(value)},
        )
    wanted = list(names)
    for name in wanted:
        if name not in AXES:
            raise PydanticCustomError(
                "sharing", "{message}", {"message": unknown(f"`{argument}`", name, AXES)}
            )
    return frozenset(wanted)

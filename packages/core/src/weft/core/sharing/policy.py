"""Policies: across which axes each part of a unit is one and the same weight.

A unit has parts (`down`, `up`, `rule`, …). Every part has a slot for each distinct combination of the axes it
is not shared across. Two sites, or two tasks, that resolve to one slot share it; no tensor is ever aliased.

| preset | `down` | `up` |
|---|---|---|
| `multiple` | per task | per task |
| `half` | per task | shared across `task` (or the other way round) |
| `single` | shared across `task` | shared across `task` |
| `unified` | shared across `modality` and `stack` | shared across `stack` |

Between all and none, `up: {task: [[vqa, gqa], [nlvr]]}` lets some tasks share, and `layers` lets rules differ by ranges
of layers, blocks, stacks and towers.

Source: the presets are the schemes of VL-Adapter (Sung et al. 2022, section 3.3) and UniAdapter (Lu et al.
2024).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

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
from pydantic_core import CoreSchema

from weft.core.backbone.sites import Site
from weft.core.errors import ConfigError, unknown
from weft.core.sharing.axes import AXES, NONE, TASK, Axes, axes_in_words, fail, read_axes
from weft.core.sharing.slots import Groups
from weft.core.sharing.where import Where

PRESETS = ("single", "multiple", "half", "unified")
_DEFAULT = "default"
_OPTIONS = ("layer_group", "layers")


class Sharing(BaseModel):
    """Which axes each part of a unit is shared across.

    In a recipe it is a preset's name (`single`), a preset with its option (`{preset: half, shared: down}`),
    or the axes of each part (`{down: [task, layer], up: []}`), where a mapping names the groups of tasks that share
    (`{up: {task: [[vqa, gqa], [nlvr]]}}`).

    Args:
        parts: Part to the axes it is shared across.
        default: Axes of the parts not named. By default what the unit itself says, which is `task` for most.
        layer_group: Every so many neighbouring layers share (1: each layer its own slot).
        groups: Part, or `default`, to the groups of tasks that share a slot of it.
        layers: Rules for some of the layers, blocks, stacks or towers; no site may be in two of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: Mapping[str, Axes] = Field(default_factory=dict)
    default: Axes | None = None
    layer_group: int = Field(default=1, ge=1)
    groups: Mapping[str, Groups] = Field(default_factory=dict)
    layers: tuple[Rule, ...] = ()

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

        VL-Adapter's reported runs share `up`.
        """
        other = {"up": "down", "down": "up"}[shared]
        return cls(parts={shared: TASK, other: NONE})

    @classmethod
    def unified(cls) -> Sharing:
        """One `down` for all modalities, an `up` for each modality."""
        both: Axes = frozenset({"modality", "stack"})
        return cls(parts={"down": both, "up": frozenset({"stack"})}, default=frozenset({"stack"}))

    def axes(self, part: str, *, default: Axes, follows: str | None = None) -> Axes:
        """The axes that a part is shared across, outside the rules of `layers`; see `at`.

        Where the part is not named, the one that it follows counts, such as `up` for the rule of `up`, then the default
        of this policy, then `default`.
        """
        name = self._named(part, follows)
        if name is not None:
            return self.parts[name]
        return default if self.default is None else self.default

    def groups_of(self, part: str, *, follows: str | None = None) -> Groups | None:
        """The groups of tasks that share a part, or None where all do or none; arguments as of `axes`."""
        name = self._named(part, follows) or (None if self.default is None else _DEFAULT)
        return None if name is None else self.groups.get(name)

    def _named(self, *parts: str | None) -> str | None:
        return next((part for part in parts if part in self.parts), None)

    def rule_at(self, site: Site) -> Rule | None:
        """The rule of `layers` that holds at a site, if any."""
        return next((rule for rule in self.layers if site in rule.where), None)

    def at(self, site: Site) -> Sharing:
        """What holds at a site: this policy, or that of its rule, which takes from this one the parts it leaves open.

        A rule with a preset or a `default` leaves none open.
        """
        rule = self.rule_at(site)
        return self if rule is None else self._ruled[self.layers.index(rule)]

    @cached_property
    def _ruled(self) -> tuple[Sharing, ...]:
        return tuple(self._with(rule.sharing) for rule in self.layers)

    def _with(self, own: Sharing) -> Sharing:
        if own.default is not None:
            return own.model_copy(update={"layer_group": self.layer_group})
        open_groups = {part: groups for part, groups in self.groups.items() if part not in own.parts}
        return Sharing.model_construct(
            parts={**self.parts, **own.parts},
            default=self.default,
            layer_group=self.layer_group,
            groups={**open_groups, **own.groups},
            layers=(),
        )

    def with_task(self, task: str) -> Sharing:
        """The policy with a task of its own in all groups that do not know it."""
        groups = {
            part: own if any(task in group for group in own) else tuple(sorted([*own, (task,)]))
            for part, own in self.groups.items()
        }
        rules = tuple(
            rule.model_copy(update={"sharing": rule.sharing.with_task(task)}) for rule in self.layers
        )
        return self.model_copy(update={"groups": groups, "layers": rules})

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if isinstance(value, str):
            return _preset(cls, value, {})
        if not isinstance(value, Mapping) or "parts" in value:
            return value
        if "preset" in value:
            options = dict(value)
            return _preset(cls, options.pop("preset"), options)
        words = {key: item for key, item in value.items() if key not in (*_OPTIONS, "groups")}
        read = {part: read_axes(f"sharing.{part}", item) for part, item in words.items() if item is not None}
        parts = {part: axes for part, (axes, _) in read.items()}
        found: dict[str, Any] = {key: value[key] for key in (*_OPTIONS, "groups") if key in value}
        if _DEFAULT in parts:
            found["default"] = parts.pop(_DEFAULT)
        groups = {part: groups for part, (_, groups) in read.items() if groups is not None}
        return {"groups": groups, "parts": parts, **found}

    @field_validator("parts", mode="before")
    @classmethod
    def _axes_are_known(cls, value: Any) -> Any:
        return {part: read_axes(f"sharing.{part}", axes)[0] for part, axes in dict(value).items()}

    @field_validator("default", mode="before")
    @classmethod
    def _default_is_known(cls, value: Any) -> Any:
        return None if value is None else read_axes("sharing.default", value)[0]

    @model_validator(mode="after")
    def _makes_sense(self) -> Sharing:
        everywhere = [*self.parts.values(), *([] if self.default is None else [self.default])]
        if self.layer_group > 1 and everywhere and all("layer" in axes for axes in everywhere):
            fail(
                "`sharing.layer_group` must be 1 where every part is shared across `layer`, but is "
                f"{self.layer_group}. Take `layer` out of a part's axes, or leave the group away."
            )
        for one, other in itertools.combinations(self.layers, 2):
            if one.where.meets(other.where):
                fail(
                    f"`sharing.layers` must put every site under one rule, but {one.where} and {other.where} overlap. "
                    "Part the ranges, or name other blocks, stacks or towers."
                )
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        group = {"layer_group": {"type": "integer", "minimum": 1}}
        rules = {"layers": {"type": "array", "items": _rule_schema()}}
        return {
            "oneOf": [
                {"enum": list(PRESETS)},
                {
                    "type": "object",
                    "properties": {**_PRESET_SCHEMA, **group, **rules},
                    "required": ["preset"],
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {**group, **rules},
                    "not": {"required": ["preset"]},
                    "additionalProperties": _part_schema(),
                },
            ]
        }

    @model_serializer
    def to_words(self) -> dict[str, Any]:
        """The policy as plain lists, in the form that a recipe takes."""
        words: dict[str, Any] = {
            part: axes_in_words(axes, self.groups.get(part)) for part, axes in sorted(self.parts.items())
        }
        if self.default is not None:
            words["default"] = axes_in_words(self.default, self.groups.get(_DEFAULT))
        if self.layer_group != 1:
            words["layer_group"] = self.layer_group
        if self.layers:
            words["layers"] = [rule.to_words() for rule in self.layers]
        return words


class Rule(BaseModel):
    """What holds in some of the layers, blocks, stacks or towers: `{range: 0-5, up: [task]}`.

    Args:
        where: Where.
        sharing: What the parts are shared across there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: Where
    sharing: Sharing

    @model_validator(mode="before")
    @classmethod
    def _from_words(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "where" in value:
            return value
        for key in _OPTIONS:
            if key in value:
                fail(
                    f"`{key}` must be beside `sharing.layers`, but is within one of its rules. Move it there."
                )
        where = {key: item for key, item in value.items() if key in Where.model_fields}
        own = {key: item for key, item in value.items() if key not in Where.model_fields}
        if not where or not own:
            fail(
                "a rule of `sharing.layers` must say where it holds (`range`, `towers`, `stacks`, `blocks`) and what "
                f"is shared, but is {dict(value)!r}. Write for instance {{range: 0-5, up: [task]}}."
            )
        return {"where": where, "sharing": own}

    @model_serializer
    def to_words(self) -> dict[str, Any]:
        """The rule in the words of a recipe."""
        return {**self.where.to_words(), **self.sharing.to_words()}


def _preset(cls: type[Sharing], name: object, options: dict[str, Any]) -> Any:
    if name not in PRESETS:
        fail(unknown("`sharing`", name, PRESETS))
    shared = options.pop("shared", "up")
    others = {key: options.pop(key) for key in _OPTIONS if key in options}
    if options or (shared != "up" and name != "half"):
        known = [*_OPTIONS, "shared"] if name == "half" else list(_OPTIONS)
        wrong = next(iter(options), "shared")
        fail(unknown(f"an option of the preset {name!r}", wrong, known))
    if shared not in ("up", "down"):
        fail(unknown("`sharing.shared`", shared, ("up", "down")))
    policy = cls.half(shared) if name == "half" else getattr(cls, str(name))()
    return {"parts": dict(policy.parts), "default": policy.default, **others}


_PRESET_SCHEMA = {"preset": {"enum": list(PRESETS)}, "shared": {"enum": ["up", "down"]}}


def _part_schema() -> dict[str, Any]:
    names = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    among = {"oneOf": [{"const": "all"}, {"type": "array", "items": names, "minItems": 1}]}
    return {
        "oneOf": [
            {"type": "array", "items": {"enum": list(AXES)}, "uniqueItems": True},
            {"type": "object", "propertyNames": {"enum": list(AXES)}, "additionalProperties": among},
        ]
    }


def _rule_schema() -> dict[str, Any]:
    words = {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
    span = {"oneOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"}]}
    return {
        "type": "object",
        "properties": {
            "range": span,
            **dict.fromkeys(("towers", "stacks", "blocks"), words),
            **_PRESET_SCHEMA,
        },
        "additionalProperties": _part_schema(),
    }


Sharing.model_rebuild()


def check_groups(sharing: Sharing, tasks: Sequence[str], *, some_tasks: bool = False) -> None:
    """Refuse groups that do not hold exactly the tasks, or with `some_tasks` all of them and others.

    Raises:
        ConfigError: If a task is in no group, or a group names none of the tasks.
    """
    policies = [sharing, *(rule.sharing for rule in sharing.layers)]
    for part, groups in (item for policy in policies for item in policy.groups.items()):
        named = [task for group in groups for task in group]
        missing = [task for task in tasks if task not in named]
        if missing:
            raise ConfigError(
                f"`sharing.{part}.task` must put every task into a group, but leaves out {', '.join(missing)}. Add "
                f"[{missing[0]}] for a slot of its own, or put it into the group it shares with."
            )
        if some_tasks:
            continue
        for name in named:
            if name not in tasks:
                raise ConfigError(unknown(f"`sharing.{part}.task`", name, tasks))

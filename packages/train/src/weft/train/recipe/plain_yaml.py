"""YAML as recipes and the command line are written in: no key twice, and no number but what it looks like."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

_INTEGER = "tag:yaml.org,2002:int"
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_MERGE = "tag:yaml.org,2002:merge"


DEPTH_SETTING, VALUES_SETTING = "WEFT_YAML_DEPTH", "WEFT_YAML_VALUES"
_LIMITS = {DEPTH_SETTING: 100, VALUES_SETTING: 100_000}


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's loader without what YAML 1.1 knows beyond that of today: octal 010, 1:30 for 90, and dates.

    Texts that a few lines with anchors blow up to millions of values are refused before any is made, and so is what is
    nested too deep.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._limits = {name: _limit(name) for name in _LIMITS}
        self._level = 0
        # Values and levels of a node, its aliases written out.
        self._measures: dict[Node, tuple[int, int]] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        mark = self.peek_event().start_mark
        alias = self.check_event(AliasEvent)
        self._level += 1
        self._check(DEPTH_SETTING, self._level, mark)
        node = super().compose_node(parent, index)
        self._level -= 1
        if node is None or node in self._measures:
            return node
        parts = _parts(node)
        if alias:
            raise _refused("an anchor must not hold itself. Take the alias out", mark)
        values = 1 + sum(self._measures[part][0] for part in parts)
        levels = 1 + max((self._measures[part][1] for part in parts), default=0)
        self._check(VALUES_SETTING, values, mark)
        self._check(DEPTH_SETTING, levels, mark)
        self._measures[node] = values, levels
        return node

    def _check(self, setting: str, found: int, mark: Any) -> None:
        if found > self._limits[setting]:
            what = "levels" if setting == DEPTH_SETTING else "values, anchors written out"
            problem = f"a text must have at most {self._limits[setting]:,} {what}, but has more"
            raise _refused(f"{problem}. {setting} sets the limit", mark)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, Node] = {}
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue
            if name in first:
                begun, again = (found.start_mark.line + 1 for found in (first[name], key))
                problem = f"a key must occur once, but {name!r} is in line {begun} and in line {again}"
                raise _refused(f"{problem}. Take one of them out", key.start_mark)
            first[name] = key
        return super().construct_mapping(node, deep)

    def integer(self, node: ScalarNode) -> int:
        """A whole number; one with a leading zero is octal to some readers of YAML and decimal to others."""
        if _LEADING_ZERO.fullmatch(node.value):
            plain = node.value.replace("_", "").lstrip("+-").lstrip("0") or "0"
            problem = f"a number must not begin with 0, but {node.value!r} does: YAML 1.1 reads it in base 8"
            raise _refused(f"{problem}. Write {plain}, or '{node.value}' for a text", node.start_mark)
        try:
            return int(self.construct_yaml_int(node))
        except ValueError:
            problem = f"a number of {len(node.value):,} digits is too long"
            raise _refused(problem, node.start_mark) from None


_PlainLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in (_INTEGER, "tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?$|[-+]?\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?$"
        r"|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)
_PlainLoader.add_implicit_resolver(
    _INTEGER,
    re.compile(r"[-+]?0b[0-1_]+$|[-+]?0x[0-9a-fA-F_]+$|[-+]?0[0-7_]*$|[-+]?[1-9][0-9_]*$"),
    list("-+0123456789"),
)
_PlainLoader.add_constructor(_INTEGER, _PlainLoader.integer)


def _refused(problem: str, mark: Any) -> ConstructorError:
    return ConstructorError(None, None, problem, mark)


def _parts(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _limit(setting: str) -> int:
    given = os.environ.get(setting, "")
    return int(given) if given.isdecimal() else _LIMITS[setting]


def fault_of(error: yaml.YAMLError) -> str:
    """What is wrong with a text and where, without the lines around it."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if problem is None:
        return next(iter(str(error).split("\n")), "")
    context = getattr(error, "context", None)
    told = f"{context}: {problem}" if context else str(problem)
    return told if mark is None else f"{told} (line {mark.line + 1}, column {mark.column + 1})"


def read_plain_yaml(text: str) -> Any:
    """The value of a YAML text.

    A key that appears twice in a mapping is refused with both lines, and so is a whole number that YAML 1.1 reads in
    base 8, such as 010. `1:30`, `2024-01-01` and `08` are texts.

    Args:
        text: The text, of at most 100 levels and 100,000 values, each alias counted as what it stands for; the
            environment variables `WEFT_YAML_DEPTH` and `WEFT_YAML_VALUES` set other limits.

    Raises:
        yaml.YAMLError: It is not YAML, or breaks these rules.

    >>> read_plain_yaml("{steps: 10, at: 1:30, day: 2024-01-01}")
    {'steps': 10, 'at': '1:30', 'day': '2024-01-01'}
    """
    try:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506  (the loader is a SafeLoader)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        # PyYAML's own constructors, for a tag whose value is none of its kind.
        raise yaml.YAMLError(f"a tag must suit its value, but {type(error).__name__}: {error}") from None

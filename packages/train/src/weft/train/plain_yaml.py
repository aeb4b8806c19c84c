"""YAML as recipes and the command line are written in: no key twice, and no number but what it looks like."""

from __future__ import annotations

import re
from collections.abc import Hashable
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

_INTEGER = "tag:yaml.org,2002:int"
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+")
_MERGE = "tag:yaml.org,2002:merge"


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's loader without what YAML 1.1 knows beyond that of today: octal 010, 1:30 for 90, and dates."""

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        first: dict[Hashable, Node] = {}
        for key, _ in node.value:
            if key.tag == _MERGE:
                continue
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):
                continue
            if name in first:
                begun = first[name].start_mark.line + 1
                raise ConstructorError(
                    None,
                    None,
                    f"a key must stand once, but {name!r} stands in line {begun} and in line "
                    f"{key.start_mark.line + 1}. Take one of them out",
                    key.start_mark,
                )
            first[name] = key
        return super().construct_mapping(node, deep)

    def integer(self, node: ScalarNode) -> int:
        """A whole number; one with a leading zero is octal to some readers of YAML and decimal to others."""
        if _LEADING_ZERO.fullmatch(node.value):
            plain = node.value.replace("_", "").lstrip("+-").lstrip("0") or "0"
            raise ConstructorError(
                None,
                None,
                f"a number must not begin with 0, but {node.value!r} does: YAML 1.1 reads it in base 8. Write {plain}, "
                f"or '{node.value}' for a text",
                node.start_mark,
            )
        return int(self.construct_yaml_int(node))


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


def read_plain_yaml(text: str) -> Any:
    """The value of a YAML text.

    A key that stands twice in a mapping is refused with both lines, and so is a whole number that YAML 1.1 reads in
    base 8, such as 010. `1:30`, `2024-01-01` and `08` are texts.

    Args:
        text: The text.

    Raises:
        yaml.YAMLError: It is not YAML, or breaks these rules.

    >>> read_plain_yaml("{steps: 10, at: 1:30, day: 2024-01-01}")
    {'steps': 10, 'at': '1:30', 'day': '2024-01-01'}
    """
    return yaml.load(text, Loader=_PlainLoader)

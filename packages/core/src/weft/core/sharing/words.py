"""A policy in words, for people who read a plan."""

from __future__ import annotations

from collections.abc import Sequence

from weft.core.sharing.axes import Axes
from weft.core.sharing.policy import Sharing
from weft.core.sharing.slots import Groups


def shared_in_words(label: str, sharing: Sharing, parts: Sequence[str]) -> list[str]:
    """One line for what holds in general, and one for every rule, of a unit with a label and parts."""
    lines = [(f"{label} shares", sharing)]
    lines += [(f"{label} shares in {rule.where}", rule.sharing) for rule in sharing.layers]
    found = []
    for front, policy in lines:
        names = [*parts, *(part for part in policy.parts if part not in parts)]
        told = [f"{part} {_of(policy, part)}" for part in names if policy is sharing or _says(policy, part)]
        found.append(f"{front}: {'; '.join(told)}")
    return found


def _says(policy: Sharing, part: str) -> bool:
    return part in policy.parts or policy.default is not None


def _of(policy: Sharing, part: str) -> str:
    if not _says(policy, part):
        return "as the unit says"
    nothing: Axes = frozenset()
    return axes_in_words(policy.axes(part, default=nothing), policy.groups_of(part))


def axes_in_words(axes: Axes, groups: Groups | None) -> str:
    """Who shares a part, such as `gqa with vqa, nlvr alone, across layer`."""
    words = [
        " with ".join(group) if len(group) > 1 else f"{group[0]} alone"
        for group in sorted(groups or (), key=len, reverse=True)
    ]
    words += [f"across {' and '.join(sorted(axes))}"] if axes else []
    return ", ".join(words) or "across nothing"

"""A proposal in the words of a recipe: `sharing` of every unit of the method."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from weft.core import Plan
from weft.core.sharing import TASK
from weft.train.runs.share.cells import other_axes
from weft.train.runs.share.partitions import Partition
from weft.train.runs.share.proposal import Choice, Proposal

Where = tuple[str, str]  # tower and stack
Blocks = frozenset[str]
Places = dict[Blocks, dict[int | None, dict[str, Partition]]]  # blocks to layer to part to what holds there
Range = tuple[int | None, int | None, tuple[tuple[str, Partition], ...]]


def sharing_of(proposal: Proposal, planned: Plan, tasks: Sequence[str]) -> list[dict[str, Any]]:
    """The `sharing` of each unit of the method, in the words of a recipe."""
    found = []
    for index in range(len(planned.configs)):
        choices = [choice for choice in proposal.choices if choice.cells[0].config == index]
        others = {part: sorted(axes) for part, axes in other_axes(planned, index).items()}
        words = _with_rules(choices, tasks, others)
        group = planned.configs[index].sharing.layer_group
        found.append(words if group == 1 else {**words, "layer_group": group})
    return found


def part_in_words(partition: Partition, tasks: Sequence[str], others: Sequence[str]) -> Any:
    """What a part is shared across beside other axes, in the words of a recipe.

    >>> part_in_words(((0, 1), (2,)), ["vqa", "gqa", "nlvr"], ["layer"])
    {'task': [['vqa', 'gqa'], ['nlvr']], 'layer': 'all'}
    """
    if len(partition) == 1:
        return sorted([*others, *TASK])
    if len(partition) == len(tasks):
        return list(others)
    return {
        "task": [[tasks[task] for task in group] for group in partition],
        **dict.fromkeys(others, "all"),
    }


def _with_rules(
    choices: Sequence[Choice], tasks: Sequence[str], others: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What holds in most of the stacks as the policy, and rules for where others hold."""
    if not choices:
        return {}
    counts: defaultdict[tuple[str, Partition], float] = defaultdict(float)
    whole: Counter[tuple[Any, ...]] = Counter()
    for choice in choices:
        whole[choice.cells[0].family] += len(choice.cells)
    for choice in choices:
        counts[choice.cells[0].part, choice.partition] += len(choice.cells) / whole[choice.cells[0].family]
    parts = dict.fromkeys(choice.cells[0].part for choice in choices)
    general = {
        part: max((p for q, p in counts if q == part), key=lambda p: counts[part, p]) for part in parts
    }
    words: dict[str, Any] = {part: part_in_words(own, tasks, others[part]) for part, own in general.items()}
    rules = []
    for (tower, stack), places in _by_tower(choices).items():
        for (first, last, assigned), blocks in _alike(places).items():
            differing = {part: own for part, own in assigned if own != general[part]}
            if differing:
                where = _where(tower, stack, first, last)
                if blocks and (blocks != _blocks_within(places, first is None) or _in_and_out(places)):
                    where["blocks"] = sorted(blocks)
                told = {part: part_in_words(own, tasks, others[part]) for part, own in differing.items()}
                rules.append({**where, **told})
    return {**words, "layers": rules} if rules else words


def _where(tower: str, stack: str, first: int | None, last: int | None) -> dict[str, Any]:
    where: dict[str, Any] = {}
    if first is not None:
        where["range"] = str(first) if first == last else f"{first}-{last}"
    if tower:
        where["towers"] = [tower]
    if stack:
        where["stacks"] = [stack]
    return where


def _by_tower(choices: Sequence[Choice]) -> dict[Where, Places]:
    """Tower and stack to what holds in their blocks; those that are not told apart are one key."""
    found: dict[Where, Places] = {}
    for choice in choices:
        for cell in choice.cells:
            blocks = frozenset([cell.block] if cell.block else cell.blocks)
            layers = found.setdefault((cell.tower, cell.stack), {}).setdefault(blocks, {})
            for layer in [None] if cell.layer is None else range(cell.layer, (cell.last or cell.layer) + 1):
                layers.setdefault(layer, {})[cell.part] = choice.partition
    return found


def _alike(places: Places) -> dict[Range, Blocks]:
    """Ranges of layers in which one assignment holds, and the blocks where it does."""
    found: dict[Range, Blocks] = {}
    for blocks, layers in places.items():
        for one in _ranges(layers):
            found[one] = found.get(one, frozenset()) | blocks
    return found


def _blocks_within(places: Places, outside: bool) -> Blocks:
    """All blocks of a tower and stack that are in its layers, or outside."""
    return frozenset().union(
        *(blocks for blocks, layers in places.items() if any((layer is None) == outside for layer in layers))
    )


def _in_and_out(places: Places) -> bool:
    """Whether there are cells both in layers and outside."""
    return len({layer is None for layers in places.values() for layer in layers}) == 2


def _ranges(layers: Mapping[int | None, Mapping[str, Partition]]) -> list[Range]:
    """Ranges of layers in which one assignment holds; layer None is its own range."""
    found: list[Range] = []
    for layer in sorted(layers, key=lambda one: -1 if one is None else one):
        assigned = tuple(sorted(layers[layer].items()))
        first, last, before = found[-1] if found else (None, None, None)
        if last is not None and layer == last + 1 and before == assigned:
            found[-1] = first, layer, assigned
        else:
            found.append((layer, layer, assigned))
    return found

"""Cells: the places where tasks may share or not, each a part of a unit in one block of a layer of one stack.

A policy can tell parts, towers, stacks, layers and blocks apart, so the gradients of all weights of a part within such
a place are one vector. Where the recipe shares some part across layers, stacks, blocks or modalities, a rule for some
of these would cut through it, so none of the unit's cells are told apart by that word.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from weft.core import Plan, Sharing
from weft.core.sharing import TASK, Axes
from weft.train.errors import RunError

_WORDS = ("tower", "stack", "block")
_PLACE = ("config", "part", *_WORDS, "layer", "last")


@dataclass(frozen=True)
class Cell:
    """Weights that are shared by the same tasks.

    Attributes:
        config: Which unit of the method.
        part: Part of the unit.
        tower: Tower of its sites, or empty where towers share.
        stack: Stack within it, or empty.
        block: Block, or empty where blocks share.
        layer: Layer, or None outside the layers and where all layers share.
        last: Last of the layers that share it with that one.
        blocks: Blocks of its sites.
        parameters: Trained parameters of one slot.
        banks: Keys of its banks.
    """

    config: int
    part: str
    tower: str
    stack: str
    block: str
    layer: int | None
    last: int | None
    blocks: tuple[str, ...]
    parameters: int
    banks: tuple[str, ...] = field(repr=False)

    @property
    def family(self) -> tuple[int, str, str, str, bool]:
        """What it has in common with the cells whose layers and blocks may be under one rule with its own."""
        return self.config, self.part, self.tower, self.stack, self.layer is None


def cells_of(planned: Plan) -> list[Cell]:
    """The cells of a plan, in its order; what nothing trains is in none.

    Raises:
        RunError: If the method has no unit with weights to share.
    """
    sites: dict[str, list[Any]] = {}
    configs: dict[str, int] = {}
    for unit in planned.units:
        for key in unit.banks.values():
            if planned.banks[key].spec.trainable:
                sites.setdefault(key, []).append(unit.site)
                configs[key] = unit.config
    grouped: dict[tuple[Any, ...], list[str]] = {}
    for index in range(len(planned.configs)):
        own = {key: found for key, found in sites.items() if configs[key] == index}
        towers, stacks, blocks = (
            _told_apart([{getattr(s, word) for s in found} for found in own.values()]) for word in _WORDS
        )
        spans = _told_apart([{site.layer for site in found} for found in own.values()])
        for key, tower, stack, block, layers in zip(own, towers, stacks, blocks, spans, strict=True):
            span = (min(layers), max(layers)) if layers and None not in layers else (None, None)
            words = ("".join(word) for word in (tower, stack, block))
            place = (index, planned.banks[key].spec.part, *words, *span)
            grouped.setdefault(place, []).append(key)
    if not grouped:
        raise RunError(
            "`method` must have units with trained weights for tasks to share, but has none. Choose one such as "
            "bottleneck or lora."
        )
    return [
        Cell(
            **dict(zip(_PLACE, place, strict=True)),
            blocks=tuple(sorted({site.block for key in keys for site in sites[key]})),
            parameters=sum(math.prod(planned.banks[key].spec.shape) for key in keys),
            banks=tuple(keys),
        )
        for place, keys in grouped.items()
    ]


def _told_apart(found: Sequence[set[Any]]) -> list[set[Any]]:
    """What each bank's sites have of a word; nothing at all where a rule for some would cut through what is shared."""
    cut = any(one & other and one != other for one in found for other in found)
    several = any(len(one) > 1 for one in found) and not all(isinstance(v, int) for one in found for v in one)
    return [set() for _ in found] if cut or several else list(found)


def across_tasks(planned: Plan, *, shared: bool) -> list[dict[str, Any]]:
    """The method of a plan with every part shared by all tasks, or by none; other axes stay."""
    words = []
    for index, config in enumerate(planned.configs):
        parts = {part: own | TASK if shared else own for part, own in other_axes(planned, index).items()}
        sharing = Sharing(parts=parts, layer_group=config.sharing.layer_group)
        words.append(config.model_copy(update={"sharing": sharing}).model_dump(mode="json"))
    return words


def other_axes(planned: Plan, config: int) -> dict[str, Axes]:
    """Part of the unit of a config, by its number, to the axes beside `task` that the recipe shares it across."""
    found: dict[str, Axes] = {}
    sharing = planned.configs[config].sharing
    for unit in planned.units:
        if unit.config == config:
            for key in unit.banks.values():
                spec = planned.banks[key].spec
                if spec.trainable and not spec.common:
                    found.setdefault(spec.part, spec.axes(sharing) - TASK)
    return found


def trained_beside(planned: Plan, cells: Iterable[Cell]) -> int:
    """Trained parameters that no policy changes, such as those of the backbone's norms."""
    slots = {key for cell in cells for key in cell.banks}
    own = sum(bank.parameters for key, bank in planned.banks.items() if key in slots and bank.spec.trainable)
    return planned.trainable_parameters - own

"""No unit at all: the backbone stays frozen but for what `train_full` names."""

from __future__ import annotations

from typing import Literal

from weft.core.unit.protocol import UnitConfig, register_unit


@register_unit
class FrozenConfig(UnitConfig):
    """Trains `train_full` alone, such as the visual embedding: the baseline of every comparison."""

    method: Literal["frozen"] = "frozen"

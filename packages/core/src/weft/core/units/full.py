"""Full fine-tuning: the towers and everything that belongs to no tower are trained."""

from __future__ import annotations

from typing import Literal

from weft.core.unit.protocol import UnitConfig, register_unit


@register_unit
class FullConfig(UnitConfig):
    """Trains the chosen towers, and the heads, embeddings and projectors that belong to no tower.

    A tower that is not chosen, such as the vision tower of a VL-BART, stays frozen.
    """

    trains = ("everything",)

    method: Literal["full"] = "full"

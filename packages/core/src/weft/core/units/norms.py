"""Norm tuning: the weights and biases of the backbone's norms are trained.

Source: Zhao et al. 2024, "Tuning LayerNorm in Attention".
"""

from __future__ import annotations

from typing import Literal

from weft.core.unit.protocol import UnitConfig, register_unit


@register_unit
class NormsConfig(UnitConfig):
    """Trains every LayerNorm or RMS norm of the chosen towers; batch norms stay as they are."""

    trains = ("norms",)

    method: Literal["norms"] = "norms"

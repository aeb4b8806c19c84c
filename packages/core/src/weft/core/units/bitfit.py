"""BitFit: the biases of the backbone are trained.

Source: Ben Zaken et al. 2022.
"""

from __future__ import annotations

from typing import Literal

from weft.core.unit.protocol import UnitConfig, register_unit


@register_unit
class BitFitConfig(UnitConfig):
    """Trains every bias of the chosen towers and of what belongs to none, such as projections and heads.

    Those of norms are among them. T5 has none.
    """

    trains = ("biases",)

    method: Literal["bitfit"] = "bitfit"

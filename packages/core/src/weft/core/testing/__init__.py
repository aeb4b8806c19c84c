"""What tests of units, families and composites need, for this package and for units from outside."""

from weft.core.testing.backbones import BACKBONES, tiny_backbone
from weft.core.testing.head_contract import HeadContract
from weft.core.testing.unit_contract import UnitContract

__all__ = ["BACKBONES", "HeadContract", "UnitContract", "tiny_backbone"]

"""What tests of units, families and composites need, for this package and for units from outside."""

from weft.core.testing.backbones import BACKBONES, tiny_backbone
from weft.core.testing.head_contract import HeadContract
from weft.core.testing.unit_contract import UnitContract
from weft.core.testing.update_contract import UpdateContract

__all__ = ["BACKBONES", "HeadContract", "UnitContract", "UpdateContract", "tiny_backbone"]

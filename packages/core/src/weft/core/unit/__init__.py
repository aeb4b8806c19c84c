"""What a unit is: its protocol, its configuration, and the parts that units are made of."""

from weft.core.unit.protocol import TensorSpec, Unit, UnitConfig, Weights, register_unit, units

__all__ = ["TensorSpec", "Unit", "UnitConfig", "Weights", "register_unit", "units"]

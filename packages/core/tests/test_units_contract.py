"""The contract of units over every registered one."""

from weft.core.testing.unit_contract import UnitContract, registered


class TestRegisteredUnits(UnitContract):
    configs = registered()

"""A unit from outside: registered, it is held to the same contract and lives in the same plans and files."""

from collections.abc import Iterator
from typing import ClassVar, Literal

import pytest

from weft.core import plan, register_unit
from weft.core.testing import UnitContract, tiny_backbone
from weft.core.testing.unit_contract import registered
from weft.core.unit.initialisers import zeros
from weft.core.unit.protocol import TensorSpec, Unit, UnitConfig, units


class Gain(Unit):
    """`y = h (1 + g)`."""

    def after(self, output, inputs, weights):
        gain = weights.rows("gain").to(output.dtype)
        shaped = gain.reshape(-1, *[1] * (output.dim() - 2), gain.shape[-1])
        return weights.keep_identity(output * (1 + shaped), output)


class GainConfig(UnitConfig):
    """A factor for each feature of every sub-layer's output."""

    parts = ("gain",)
    method: Literal["gain"] = "gain"

    def select(self, sites):
        return sites.select(towers=self.towers, layers=self.layers, stacks=self.stacks)

    def tensors(self, site, sites):
        return (TensorSpec("gain", (site.width,), zeros, "gain"),)

    def build(self, site):
        return Gain()


class Shift(Unit):
    """`y = f(x + s)`: nothing but the input is changed."""

    def before(self, inputs, weights):
        shift = weights.rows("gain").to(inputs.dtype)[:, None]
        return weights.keep_identity(inputs + shift, inputs)


class ShiftConfig(GainConfig):
    """A number for each feature that every sub-layer's last map reads."""

    method: Literal["shift"] = "shift"

    def select(self, sites):
        return sites.select(roles=("down",))

    def tensors(self, site, sites):
        return (TensorSpec("gain", (site.in_width,), zeros, "gain"),)

    def build(self, site):
        return Shift()


@pytest.fixture(autouse=True)
def registered_here() -> Iterator[None]:
    for config in (GainConfig, ShiftConfig):
        register_unit(config)
    yield
    for name in ("gain", "shift"):
        units().forget(name)


class TestAUnitFromOutside(UnitContract):
    configs: ClassVar = [GainConfig()]
    backbones: ClassVar = ["bart", "clip"]


def test_a_registered_unit_is_among_those_that_the_suite_runs_over():
    assert GainConfig() in registered()


def test_any_sharing_works_on_its_parts():
    model, _ = tiny_backbone("bart")
    sharing = {"gain": ["task", "layer", "stack"]}
    planned = plan(model, {"method": "gain", "sharing": sharing}, ["vqa", "gqa"])
    assert set(planned.banks) == {
        f"gain.text.all.{block}.gain" for block in ("attention", "cross_attention", "ffn")
    }
    assert planned.trainable_parameters == 3 * 16


class TestUnitThatOverridesOneHook(UnitContract):
    configs: ClassVar[list[UnitConfig]] = [ShiftConfig()]
    backbones: ClassVar[list[str]] = ["bart"]

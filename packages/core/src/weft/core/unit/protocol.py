"""Units: the small trainable computations, apart from where they act and how their weights are shared.

A unit is two things. Its *configuration* (a frozen pydantic model, discriminated on `method`) chooses sites
and says which tensors each site needs. Its *computation* (`Unit`) maps a site's output to the adapted output,
given the tensors. Neither owns a weight: banks do (`weft.core.adapted.bank`), so that sharing is the same for every
unit.

To add a unit from outside: subclass `UnitConfig` and `Unit`, and decorate the configuration with
`register_unit`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from weft.core.backbone.sites import Block, Modality, Site, SiteMap
from weft.core.backbone.wiring import Need
from weft.core.errors import ConfigError
from weft.core.registry import Registry, method_of
from weft.core.sharing import TASK, Axes, Groups, Sharing
from weft.core.unit.weights import Weights as Weights

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weft.core.unit.attention import Attention

Init = Callable[["Tensor"], None]
WeightsOf = Callable[["Tensor"], Weights]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that a unit needs at a site.

    Args:
        name: Name within the unit, such as `down.weight`.
        shape: Shape of one slot.
        init: Fills one slot in place.
        part: Part of the unit it belongs to; its sharing is declared per part.
        default: Axes it is shared across if the policy says nothing about the part.
        follows: Part whose sharing it takes if the policy does not name its own.
        modality: Modality its slot belongs to, if not the site's.
        trainable: Whether it is trained; a fixed tensor is saved with the rest.
        alias: Name under which the unit reads it, where it reads several of one name, of several modalities.
        common: Whether a policy changes what it is shared across only where it names the part, as with random
            matrices that nothing trains.
    """

    name: str
    shape: tuple[int, ...]
    init: Init
    part: str
    default: Axes = TASK
    follows: str | None = None
    modality: Modality | None = None
    trainable: bool = True
    alias: str | None = None
    common: bool = False

    def axes(self, sharing: Sharing) -> Axes:
        """The axes that it is shared across under a policy, which is that of its site (`Sharing.at`)."""
        if self.common and self.part not in sharing.parts:
            return self.default
        return sharing.axes(self.part, default=self.default, follows=self.follows)

    def groups(self, sharing: Sharing) -> Groups | None:
        """The groups of tasks that share it under a policy, or None where all do or none."""
        if self.common and self.part not in sharing.parts:
            return None
        return sharing.groups_of(self.part, follows=self.follows)


class Unit:
    """The computation of one unit at one site. It holds numbers, never tensors.

    A unit overrides what it changes: `before`, `after`, `beside`, `finish`, `attend` or `call`. The others leave things
    as they are, and which of them it overrides says what is done for it.

    Class attributes:
        taps: Fields of a site's wiring that name modules whose input the unit wants beside, such as `query`. Declared,
            because no hook says which modules are meant.
        wraps: Fields of a site's wiring that name modules which the unit calls itself, such as `path`; a unit that
            wraps any acts through `call` alone. Declared for the same reason.
        changes_input: Whether it overrides `before`.
        changes_attention: Whether it overrides `attend`.
        reads_source: Whether it overrides `beside`.
        finishes: Whether it overrides `finish`.
        linear_in: Tensors in each of which alone, the others alike, what it adds is linear.
    """

    taps: ClassVar[tuple[str, ...]] = ()
    wraps: ClassVar[tuple[str, ...]] = ()
    changes_input: ClassVar[bool] = False
    changes_attention: ClassVar[bool] = False
    reads_source: ClassVar[bool] = False
    finishes: ClassVar[bool] = False
    linear_in: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.changes_input = cls.before is not Unit.before
        cls.changes_attention = cls.attend is not Unit.attend
        cls.reads_source = cls.beside is not Unit.beside
        cls.finishes = cls.finish is not Unit.finish

    def start(self, module: nn.Module, slots: Mapping[str, Tensor]) -> None:
        """Set starting values that depend on the site's module, in place; by default none do.

        The slots, by name, were just drawn; with a new task, they are those of that task alone.
        """

    def attend(self, attention: Attention, weights: Weights) -> None:
        """Change the keys and values in place where the site's module calls an attention; by default nothing."""

    def call(
        self, name: str, forward: Callable[..., Any], arguments: dict[str, Any], weights: WeightsOf
    ) -> Any:
        """Call a module that the unit wraps; by default without any change.

        Args:
            name: Which of `wraps` it is.
            forward: The module's own forward.
            arguments: What it was called with, by name.
            weights: Gives the tensors of this site for the rows of a tensor.
        """
        return forward(**arguments)

    def merge(self, module: nn.Module, weights: Weights) -> None:
        """Change the weights of the site's module, in place, so that it does what the unit does to rows of one task.

        Units that are not linear leave this as it is.
        """
        raise AssertionError(f"{type(self).__name__} is not linear")

    def combine(
        self, slots: Mapping[str, Tensor], factors: Tensor, own: frozenset[str]
    ) -> tuple[dict[str, Tensor], float]:
        """Slots of a task that does a sum of what several tasks do.

        By default the sum of a tensor that the unit is linear in, where tasks differ in that alone, else a mean.

        Args:
            slots: Name to the tensor of each task, shape `(tasks, *shape)`.
            factors: Factor of each task, float64, shape `(tasks,)`.
            own: Names of the tensors of which the new task has its own; the others are the same for all.

        Returns:
            Name to tensor, and the error relative to what was to be computed.

        Raises:
            ConfigError: If the factors are not those of a mean, and the unit is not linear in its slots.
        """
        if len(own) == 1 and own <= self.linear_in:
            return {name: weighted_sum(slots[name], factors) for name in own}, 0.0
        total = float(factors.sum())
        if abs(total - 1) > 1e-6:
            raise ConfigError(
                f"`weights` must sum to 1, because {type(self).__name__} is not linear in its slots and only a "
                f"mean of them is meant, but they sum to {total:g}. Give the factors of a mean."
            )
        return {name: weighted_sum(value, factors) for name, value in slots.items()}, 0.0

    def before(self, inputs: Tensor, weights: Weights) -> Tensor:
        """Change what the site's module reads, shape `(rows, ..., in_width)`; by default nothing."""
        return inputs

    def after(self, output: Tensor, inputs: Tensor, weights: Weights) -> Tensor:
        """Change what the site's module returns, keeping shape and dtype; by default nothing.

        Shapes are `(rows, ..., out_width)` and `(rows, ..., in_width)`.
        """
        return output

    def beside(self, output: Tensor, source: Tensor, weights: Weights) -> Tensor:
        """Change what the site's module returns by what its sub-layer reads, as `after` does; by default nothing.

        Where the family names no other, `source` is the input of the site's module. Shapes are `(rows, ..., out_width)`
        and `(rows, ..., width)`.
        """
        return output

    def finish(self, output: Tensor, weights: Weights) -> Tensor:
        """Change what all units at the site's module together return, wherever this one stands; by default nothing.

        The shape is `(rows, ..., out_width)`.
        """
        return output


# What examples say in the fields they have.
_SMALL: dict[str, Any] = {
    "bottleneck_size": 4,
    "rank": 2,
    "length": 2,
    "frames": 1,
    "scale": 1.0,
    "dropout": 0.0,
}


def weighted_sum(values: Tensor, factors: Tensor) -> Tensor:
    """`Σ factor · value` in float64, in the dtype of the values, shape `(tasks, *shape)`."""
    shaped = factors.to(values.device).view(-1, *[1] * (values.dim() - 1))
    return (values.double() * shaped).sum(dim=0).to(values.dtype)


Config = TypeVar("Config", bound="UnitConfig")


class UnitConfig(BaseModel):
    """What every unit's configuration has.

    Args:
        method: Name of the unit.
        name: Label of its weights in the checkpoint, to tell two units of one method apart.
        sharing: Across which axes each part is shared; see `weft.core.sharing`.
        towers: Towers adapted; by default what the family says.
        stacks: Stacks within the towers (`encoder`, `decoder`); by default all.
        layers: Layers adapted; by default all.
        train_full: Components of the backbone trained in full, by word: `norms`, `biases`,
            `visual_embedding`, `embeddings`, `lm_head`, `projector`, `vision`, …; the family says which it
            has.

    Class attributes:
        parts: Parts whose sharing can be declared.
        home: Towers adapted where `towers` names none; None stands for what the family says.
        acts_at: Blocks where it acts, if it has no field `blocks`; empty for a unit without sites.
        roles: Linear maps where it acts, if it has no field `linears`; the empty one is the sub-layer's output.
        trains: Components trained in full after those of `train_full`, by word.
        requires: What each of its sites must have, which `plan` checks; see `weft.core.backbone.needs`.
        stops_gradients: Whether no gradient passes through the layers where it acts.
        start_fields: Fields that decide whether the unit starts as the backbone, as it does with their defaults; empty
            where it always does, None where it cannot, for a reason that its docstring gives.
        earlier: What fields mean in checkpoints that were written before there were such fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    parts: ClassVar[tuple[str, ...]] = ()
    home: ClassVar[tuple[str, ...] | None] = None
    acts_at: ClassVar[tuple[Block, ...]] = ()
    roles: ClassVar[tuple[str, ...]] = ("",)
    trains: ClassVar[tuple[str, ...]] = ()
    requires: ClassVar[tuple[Need, ...]] = ()
    stops_gradients: ClassVar[bool] = False
    start_fields: ClassVar[tuple[str, ...] | None] = ()
    earlier: ClassVar[Mapping[str, Any]] = {}

    method: str
    name: str | None = Field(default=None, pattern=r"^[a-z][a-z0-9_]*$")
    sharing: Sharing = Field(default_factory=Sharing)
    towers: tuple[str, ...] | None = None
    stacks: tuple[str, ...] | None = None
    layers: tuple[int, ...] | None = None
    train_full: tuple[str, ...] = ()

    @field_validator(
        *("towers", "stacks", "layers", "train_full"),
        mode="before",
        json_schema_input_type=tuple[str, ...] | tuple[int, ...] | str | int | None,
    )
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str | int) and not isinstance(value, bool) else value

    @property
    def label(self) -> str:
        """First word of the keys of its weights."""
        return self.name or self.method

    @property
    def needs(self) -> tuple[Need, ...]:
        """What each of its sites must have with these fields: by default what the class requires."""
        return self.requires

    @property
    def signals(self) -> tuple[str, ...]:
        """Tensors of the batch that its computation reads; what can be worked out of the inputs, the model adds."""
        return ()

    @property
    def owes(self) -> bool:
        """Whether its computation adds an auxiliary loss."""
        return False

    def words(self, sites: SiteMap) -> tuple[str, ...]:
        """Components trained in full, by word, for this backbone."""
        return (*self.train_full, *self.trains)

    def select(self, sites: SiteMap) -> tuple[Site, ...]:
        """The sites where the unit acts: by default the outputs or maps that the class or its fields name.

        Raises:
            AddressError: If a word of the configuration fits nothing.
        """
        if not self.acts_at and not hasattr(self, "blocks"):
            return ()
        return self.among(sites, getattr(self, "blocks", self.acts_at), getattr(self, "linears", self.roles))

    def among(
        self, sites: SiteMap, blocks: Sequence[Block] | None, roles: Sequence[str] = ("",)
    ) -> tuple[Site, ...]:
        """Sites within the towers, stacks and layers of the configuration; see `SiteMap.select`."""
        towers = self.home if self.towers is None else self.towers
        return sites.select(towers=towers, blocks=blocks, roles=roles, layers=self.layers, stacks=self.stacks)

    def tensors(self, site: Site, sites: SiteMap) -> tuple[TensorSpec, ...]:
        """The tensors needed at a site of a backbone.

        Raises:
            ConfigError: If a size does not fit the site.
        """
        return ()

    def build(self, site: Site) -> Unit:
        """The computation at a site."""
        raise AssertionError(f"{type(self).__name__} selects no sites")

    @classmethod
    def example(cls) -> UnitConfig:
        """A small configuration for tests, without dropout, which leaves the start to the defaults."""
        return cls(**{name: value for name, value in _SMALL.items() if name in cls.model_fields})


class ConfiguredUnit(Unit, Generic[Config]):
    """A computation that reads its numbers from its configuration and its site."""

    def __init__(self, config: Config, site: Site) -> None:
        self.config = config
        self.site = site


UNITS: Registry[type[UnitConfig]] = Registry("`method`", ConfigError, "weft.core.units", group="weft.units")
C = TypeVar("C", bound=type[UnitConfig])


def register_unit(config: C) -> C:
    """Make a unit known under the default of its `method`; a class decorator.

    Raises:
        ConfigError: If `method` has no default, or belongs to another unit.
    """
    UNITS.register(method_of(config, ConfigError), config)
    return config


def units() -> Registry[type[UnitConfig]]:
    """All registered units by `method`, alphabetically."""
    return UNITS

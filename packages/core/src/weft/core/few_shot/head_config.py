"""Configurations of heads, and the registry that knows them by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weft.core.errors import ConfigError, faults_of, unknown
from weft.core.registry import Registry, method_of

if TYPE_CHECKING:
    from torch import nn

SelectBy = Literal["accuracy", "loss"]
Axes = Mapping[str, Sequence[float]]
CLIP_SCALE, WIDENINGS = 100.0, 4


class HeadConfig(BaseModel):
    """What every head's configuration has.

    Args:
        method: Name of the head.
        logit_scale: Factor of the cosine between image and class, `exp` of CLIP's learned scale.
        select_by: Whether validation samples choose what is most accurate on them, or what has the least cross-entropy;
            epochs and hyper-parameters alike.

    Class attributes:
        head: The class of heads whose `config_class` it is; not a subclass of that which names it again.
        earlier: What fields mean in files that were written before there were such fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    head: ClassVar[type[Any]]
    earlier: ClassVar[Mapping[str, Any]] = {}

    method: str
    logit_scale: float = Field(default=CLIP_SCALE, gt=0)
    select_by: SelectBy = "accuracy"

    def axes(self) -> Axes:
        """Searched values of hyper-parameters that have no natural bounds; by default there are none."""
        return {}

    def widenings(self) -> int:
        """How often a search widens its grid at most; by default never."""
        return 0

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """Number of trained parameters outside the encoder, before a head is built; samples count over all classes."""
        return 0

    def trained_within(self, model: nn.Module) -> int:
        """Number of parameters that a head trains within the encoder, which may be on the meta device."""
        return 0


HEADS: Registry[type[HeadConfig]] = Registry(
    "`method`", ConfigError, "weft.core.few_shot.methods", group="weft.heads"
)
C = TypeVar("C", bound=type[HeadConfig])


def register_head(config: C) -> C:
    """Make a head known under the default of its `method`; a class decorator.

    Raises:
        ConfigError: If `method` has no default, or belongs to another head.
    """
    HEADS.register(method_of(config, ConfigError), config)
    return config


def heads() -> Registry[type[HeadConfig]]:
    """Configurations of all registered heads by `method`, alphabetically."""
    return HEADS


def parse_head(value: HeadConfig | Mapping[str, Any]) -> HeadConfig:
    """Validate a head's configuration.

    Args:
        value: A configuration, or a dictionary with `method`.

    Raises:
        ConfigError: With every fault, and near matches of an unknown name.

    >>> parse_head({"method": "tip_adapter", "alpha": 2.0}).alpha
    2.0
    """
    if isinstance(value, HeadConfig):
        return value
    method = value.get("method")
    if method not in HEADS:
        raise ConfigError(unknown("`method`", method, HEADS))
    try:
        return HEADS[str(method)].model_validate(dict(value))
    except ValidationError as error:
        raise ConfigError("\n".join([f"the head {method!r} is wrong:", *faults_of(error)])) from None

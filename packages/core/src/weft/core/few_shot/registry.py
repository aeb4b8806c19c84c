"""Configurations of heads, and the registry that knows them by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from weft.core.errors import ConfigError, unknown
from weft.core.unit.method import faults_of


class HeadConfig(BaseModel):
    """What every head's configuration has.

    Args:
        method: Name of the head.
        logit_scale: Factor of the cosine between image and class, `exp` of CLIP's learned scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    head: ClassVar[type[Any]]

    method: str
    logit_scale: float = Field(default=100.0, gt=0)

    def trainable_parameters(self, *, num_classes: int, num_samples: int, width: int) -> int:
        """Number of trained parameters, before anything is built.

        Args:
            num_classes: Number of classes.
            num_samples: Training samples of all classes together.
            width: Width of the features.
        """
        return 0


_REGISTRY: dict[str, type[HeadConfig]] = {}
_LOADED: set[str] = set()
C = TypeVar("C", bound=type[HeadConfig])


def register_head(config: C) -> C:
    """Make a head known under the default of its `method`; a class decorator.

    Raises:
        ConfigError: If the name belongs to another head.
    """
    other = _REGISTRY.setdefault(method_of(config), config)
    if (other.__module__, other.__qualname__) != (config.__module__, config.__qualname__):
        raise ConfigError(
            f"`method` must be new, but {method_of(config)!r} is taken by {other.__module__}."
            f"{other.__qualname__}. Choose another name for {config.__qualname__}."
        )
    _REGISTRY[method_of(config)] = config
    return config


def heads() -> dict[str, type[HeadConfig]]:
    """Configurations of all registered heads by `method`, alphabetically."""
    package = importlib.import_module("weft.core.few_shot.methods")
    for module in pkgutil.iter_modules(package.__path__):
        if module.name not in _LOADED:
            importlib.import_module(f"weft.core.few_shot.methods.{module.name}")
            _LOADED.add(module.name)
    return dict(sorted(_REGISTRY.items()))


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
    known = heads()
    method = value.get("method")
    if method not in known:
        raise ConfigError(unknown("`method`", method, known))
    try:
        return known[str(method)].model_validate(dict(value))
    except ValidationError as error:
        raise ConfigError("\n".join([f"the head {method!r} is wrong:", *faults_of(error)])) from None


def method_of(config: type[HeadConfig]) -> str:
    """Name of the head that a class of configurations is for."""
    return str(config.model_fields["method"].default)

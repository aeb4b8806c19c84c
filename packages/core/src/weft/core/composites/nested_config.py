"""Configs inside configs: a model's config, or its dictionary, of any type that transformers knows."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from weft.core.errors import ConfigError


class CompositeConfig(PreTrainedConfig):
    """A config with configs of its parts inside."""

    def to_dict(self) -> dict[str, Any]:
        """The configuration as a dictionary that JSON can hold."""
        parts = {
            name: part.to_dict() for name, part in vars(self).items() if isinstance(part, PreTrainedConfig)
        }
        return {**super().to_dict(), **parts}


def nested_config(value: PreTrainedConfig | dict[str, Any]) -> PreTrainedConfig:
    """The config of a part, given as it is or as the dictionary that its `to_dict` gives.

    Raises:
        ConfigError: If the dictionary's `model_type` is not one that transformers knows.
    """
    if isinstance(value, PreTrainedConfig):
        return value
    if value.get("model_type") not in CONFIG_MAPPING:
        raise ConfigError(
            f"`model_type` of a nested config must be one that transformers knows, but is "
            f"{value.get('model_type')!r}. Take the dictionary from `config.to_dict()`."
        )
    return CONFIG_MAPPING[value["model_type"]].from_dict(value)

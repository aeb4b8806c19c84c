"""Configs inside configs: a model's config, or its dictionary, of any type that transformers knows."""

from __future__ import annotations

from typing import Any

from transformers import CONFIG_MAPPING, PreTrainedConfig

from weft.core.errors import ConfigError


def nested_config(value: PreTrainedConfig | dict[str, Any]) -> PreTrainedConfig:
    """A config object for one part of a composite.

    Args:
        value: A config, or the dictionary that its `to_dict` gives.

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

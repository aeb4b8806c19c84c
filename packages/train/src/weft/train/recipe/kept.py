"""What is kept of a recipe beside its results: everything but credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel

from weft.data.sources.credentials import without_credentials, without_secrets

_OPTIONS = ("options", "test_options")  # what a data set and its file system take, keys and tokens among it


def kept_text(recipe: BaseModel) -> str:
    """The text of the `recipe.yaml` of a run. Environment variables stay named in it; credentials do not.

    Args:
        recipe: A recipe of any kind.
    """
    values = _kept(recipe.model_dump(mode="json"))
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: without_credentials(part) if name in _OPTIONS else _kept(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_kept(part) for part in value]
    return without_secrets(value) if isinstance(value, str) else value

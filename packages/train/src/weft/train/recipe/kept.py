"""What is kept of a recipe beside its results: everything but credentials, and paths that hold in any folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from weft.data.sources.credentials import without_credentials, without_secrets

_OPTIONS = ("options", "test_options")  # what a data set and its file system take, keys and tokens among it
_SHIPPED = "miniature"  # no file of this name is meant


def kept_text(recipe: BaseModel) -> str:
    """The text of the `recipe.yaml` of a run. Environment variables stay named in it; credentials do not.

    Paths that count from the current folder are written whole.
    """
    return yaml.safe_dump(_kept(_with_whole_paths(recipe)), sort_keys=False, allow_unicode=True)


def _with_whole_paths(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {name: _with_whole_paths(value) for name, value in part.items()}
    if not isinstance(part, BaseModel):
        return part
    plain = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        value = getattr(part, name)
        parts = value.values() if isinstance(value, Mapping) else (value,)
        if any(isinstance(part, BaseModel) for part in parts):
            plain[name] = _with_whole_paths(value)
        elif (field.json_schema_extra or {}) == {"format": "path"}:
            plain[name] = _whole(value, made=name == "output")
    return plain


def _whole(value: Any, *, made: bool) -> Any:
    """A path, or each of several, from the root on; hub ids, addresses and what begins with a variable stay."""
    if isinstance(value, list):
        return [_whole(part, made=made) for part in value]
    if not isinstance(value, str) or value == _SHIPPED or value.startswith(("~", "$")):
        return value
    return str(Path(value).absolute()) if made or Path(value).exists() else value


def _kept(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {
            name: without_credentials(part) if name in _OPTIONS else _kept(part)
            for name, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [_kept(part) for part in value]
    return without_secrets(value) if isinstance(value, str) else value

"""Recipes on disk: where they are found, what they extend, and overrides on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from os.path import isfile  # Path.is_file raises for names that are too long
from pathlib import Path
from typing import Any

import yaml

from weft.data.sources.safe_paths import leads_to
from weft.train.errors import RecipeError, near
from weft.train.recipe.plain_yaml import fault_of, read_plain_yaml

BUILT_IN = Path(__file__).parents[1] / "recipes"


def built_in_recipes() -> list[str]:
    """Names of the recipes shipped with weft, sorted; files that begin with an underscore are only extended."""
    found = (path for path in BUILT_IN.rglob("*.yaml") if not path.name.startswith("_"))
    return sorted(path.relative_to(BUILT_IN).with_suffix("").as_posix() for path in found)


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe, by its path or its built-in name.

    Raises:
        RecipeError: If there is neither, with near matches.
    """
    for path in (Path(source).expanduser(), BUILT_IN / f"{source}.yaml"):
        if isfile(path):
            return path
    raise RecipeError(
        f"`RECIPE` must be a YAML file or a built-in name, but is {str(source)!r}. "
        f"{near(source, built_in_recipes())} See `weft recipes list`."
    )


def read_yaml(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Read a recipe file, merged over the one it `extends` (a path relative to the file, or a built-in name).

    Args:
        path: The file.
        above: The files that extend it, the nearest first.

    Raises:
        RecipeError: If it is not YAML, not a mapping, or extends a file that is not there, itself, or one that neither
            is beside the first file nor is built in.
    """
    values = _mapping(path)
    base = _base(path, values, above)
    values.pop("extends", None)
    return values if base is None else merge(read_yaml(base, (path, *above)), values)


def _mapping(path: Path) -> dict[str, Any]:
    """The keys of one file. What is wrong with it is said by its place, never by its words, which may be anybody's."""
    try:
        values = read_plain_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        told = fault_of(error) if isinstance(error, yaml.YAMLError) else str(error)
        raise RecipeError(f"{path} must be YAML, but cannot be read: {told}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} must hold a mapping of keys, but holds {type(values).__name__}.")
    return values


def _base(path: Path, values: Mapping[str, Any], above: tuple[Path, ...]) -> Path | None:
    """The file that a recipe extends, or None."""
    named = values.get("extends")
    if named is None:
        return None
    if not isinstance(named, str):
        raise RecipeError(
            f"`extends` of {path} must be the path of a file beside it or a built-in name, but is a "
            f"{type(named).__name__}."
        )
    base, built_in = path.parent / named, BUILT_IN / f"{named}.yaml"
    if not isfile(base) and _within(built_in, BUILT_IN) and isfile(built_in):
        return built_in
    top = (above or (path,))[-1].parent
    if not _within(base, top) and not _within(base, BUILT_IN):
        raise RecipeError(
            f"`extends` of {path} must name a file in the folder of the recipe ({top}) or a built-in recipe, but "
            f"{named!r} leads to {leads_to(base) or 'no place'}. Copy that file there."
        )
    if not isfile(base):
        raise RecipeError(f"`extends` of {path} must name a file beside it, but {base} does not exist.")
    if base.resolve() in {other.resolve() for other in (path, *above)}:
        raise RecipeError(f"`extends` of {path} must name another file, but {base} extends this one in turn.")
    return base


def _within(path: Path, folder: Path) -> bool:
    place = leads_to(path)
    return place is not None and place.is_relative_to(folder.resolve())


def remarks(path: Path, above: tuple[Path, ...] = ()) -> list[str]:
    """Whole lines of comment in a recipe file, after those of the file that it extends; `above` as for `read_yaml`."""
    base = _base(path, _mapping(path), above)
    lines = path.read_text(encoding="utf-8").split("\n")
    own = [line.rstrip() for line in lines if line.startswith("#")]
    return own if base is None else remarks(base, (path, *above)) + own


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another; mappings merge key by key, but a `method` is replaced as a whole.

    A `revision` below is that of the model which is named beside it, and goes with that name.
    """
    merged = dict(below)
    if _names_another(below, above):
        merged.pop("revision", None)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = merge(merged[key], value) if both and key != "method" else value
    return merged


def _names_another(below: Mapping[str, Any], above: Mapping[str, Any]) -> bool:
    """Whether a model of another name is merged over one with its own revision."""
    return any(key in above and above[key] != below.get(key) for key in ("name", "language", "tokenizer"))


def apply_overrides(values: Mapping[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Set `key.sub=value` entries; values are read as YAML, and entries of a list are called by their number, from 0.

    Args:
        values: What a file says.
        overrides: The entries, such as `training.steps=100` or `method.0.bottleneck_size=512`.

    Raises:
        RecipeError: If an entry has no `=`, or its path runs through something that is no mapping and no list, or past
            the end of a list.
    """
    result = merge({}, values)
    for entry in overrides:
        path, separator, text = entry.partition("=")
        if not separator or not path:
            raise RecipeError(
                f"An override must be `key.sub=value`, but is {entry!r}. Write for instance training.steps=100."
            )
        try:
            value = read_plain_yaml(text)
        except yaml.YAMLError as error:
            raise RecipeError(
                f"The value of the override {entry!r} must be YAML, but cannot be read: {fault_of(error)}"
            ) from None
        result = _set(result, path.split("."), value, entry)
    return result


def _set(values: Mapping[str, Any], path: list[str], value: Any, entry: str) -> dict[str, Any]:
    key, *rest = path
    changed = {key: _replaced(values.get(key), key, rest, value, entry)}
    if not rest and _names_another(values, changed):
        values = {name: part for name, part in values.items() if name != "revision"}
    return {**values, **changed}


def _replaced(present: Any, place: str, rest: list[str], value: Any, entry: str) -> Any:
    """What is at a place once the value at the rest of the path, counted from there, is set."""
    if not rest:
        return value
    if isinstance(present, list):
        if not rest[0].isdecimal() or int(rest[0]) >= len(present):
            raise RecipeError(
                f"The override {entry!r} must call an entry of {place!r} by its number, 0 to {len(present) - 1}, but "
                f"says {rest[0]!r}."
            )
        number = int(rest[0])
        changed = _replaced(present[number], rest[0], rest[1:], value, entry)
        return [*present[:number], changed, *present[number + 1 :]]
    if present is not None and not isinstance(present, Mapping):
        raise RecipeError(
            f"The override {entry!r} must follow mappings and lists, but {place!r} holds {present!r}."
        )
    return _set(present or {}, rest, value, entry)

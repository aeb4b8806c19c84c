"""Recipes read, overridden and validated: the kinds there are, and which of them a file holds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from weft.train.errors import RecipeError
from weft.train.recipe.faults import faults_of, listed
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.files import apply_overrides, find_recipe, merge, read_yaml
from weft.train.recipe.training import Recipe

AnyRecipe = Recipe | FewShotRecipe
"""Every kind of recipe. One with the key `heads` is a `FewShotRecipe`, any other a `Recipe`."""
Source = str | Path | Mapping[str, Any]


def load_any(source: Source, overrides: list[str] | None = None) -> AnyRecipe:
    """Read, override and validate a recipe of any kind.

    Args:
        source: A path, a built-in name such as `demo/single_adapter` or `xmadapter/eurosat`, or a dictionary.
        overrides: `key.sub=value` entries; values are read as YAML.

    Raises:
        RecipeError: With every fault at once.
    """
    values, shown = _read(source)
    if "heads" not in values:
        return _training(values, overrides or [], shown)
    try:
        return FewShotRecipe.model_validate(apply_overrides(values, overrides or []))
    except ValidationError as error:
        raise RecipeError(listed(shown, faults_of(error, FewShotRecipe))) from None


def load_recipe(source: Source, overrides: list[str] | None = None) -> Recipe:
    """Read, override and validate a recipe that trains; arguments and errors are those of `load_any`."""
    values, shown = _read(source)
    return _training(values, overrides or [], shown)


def _read(source: Source) -> tuple[dict[str, Any], str]:
    """The keys of a recipe, and how messages call it."""
    if isinstance(source, Mapping):
        return dict(source), "the recipe"
    if not isinstance(source, str | Path):
        raise RecipeError(
            f"`recipe` must be a dictionary, a path or a built-in name, but is {source!r}. See `weft recipes list`."
        )
    return read_yaml(find_recipe(source)), str(source)


def _training(values: Mapping[str, Any], overrides: list[str], shown: str) -> Recipe:
    values = _with_paper(apply_overrides(values, overrides), overrides)
    recipe, faults = _validated(values)
    settings = values.get("paper_settings")
    if isinstance(settings, Mapping):
        # Faults of `paper: true` are found without it too.
        _, laid = _validated(merge(values, settings))
        faults += [
            f"paper_settings.{fault}" for fault in laid if fault not in faults and _stands_in(fault, settings)
        ]
    if faults or recipe is None:
        raise RecipeError(listed(shown, faults))
    return recipe


def _validated(values: Mapping[str, Any]) -> tuple[Recipe | None, list[str]]:
    """The recipe, or None, and all faults."""
    of_method = _method_faults(values["method"]) if "method" in values else []
    try:
        return Recipe.model_validate(values), of_method
    except ValidationError as error:
        return None, faults_of(error, Recipe, values.get("tasks")) + of_method


def _stands_in(fault: str, settings: Any) -> bool:
    """Whether a fault's place is one that the settings speak of."""
    place = fault.partition(":")[0].split(".")
    if place[0] == "method":
        return "method" in settings
    for word in place:
        if not isinstance(settings, Mapping):
            break
        if word not in settings:
            return False
        settings = settings[word]
    return True


def _with_paper(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Lay the paper's settings over the file; overrides stay above them. They are then part of the recipe."""
    settings = values.get("paper_settings")
    if values.get("paper") is not True or not isinstance(settings, Mapping):
        return values
    return apply_overrides(merge(values, settings), overrides) | {"paper_settings": {}}


def _method_faults(method: Any) -> list[str]:
    """Faults of the method, found by the registered units themselves."""
    from weft.core.errors import WeftError
    from weft.core.unit.method import parse_method

    try:
        parse_method(method)
    except WeftError as error:
        lines = [line.removeprefix("- ") for line in str(error).split("\n")]
        return [
            f"method: {line}" if line.startswith("a method ") else f"method.{line}" for line in lines[1:]
        ] or lines
    return []

"""What made a result: the recipe and the data. A result counts for that recipe alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from weft.train.errors import RunError
from weft.train.output.result import RESULT
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.kept import kept_text
from weft.train.recipe.plain_yaml import read_plain_yaml
from weft.train.recipe.training import Recipe
from weft.train.runs.provenance import data_params

_SHOWN = 4


def check_origin(recipe: Recipe) -> None:
    """Refuse the result in a recipe's folder if another recipe, or other data, made it.

    Args:
        recipe: The recipe; nothing is done if its folder holds no result.

    Raises:
        RunError: Naming what differs.
    """
    if not (recipe.folder / RESULT).is_file():
        return
    differing = list(_differences(recipe))
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise RunError(
            f"A result must be that of the recipe, but the one in {recipe.folder} is of another: "
            f"{'; '.join(differing[:_SHOWN])}{more}. Take name=... for new runs, or remove that folder."
        )


def _differences(recipe: Recipe) -> Iterator[str]:
    kept = _flat(_of_file(recipe.folder / "recipe.yaml"))
    wanted = _flat(read_plain_yaml(kept_text(recipe)))
    for key in sorted(kept.keys() | wanted.keys()):
        if key != "tracking.parent" and kept.get(key) != wanted.get(key):
            yield f"{key} was {kept.get(key)!r} and is {wanted.get(key)!r}"
    if kept.keys() - {"tracking.parent"} != wanted.keys() - {"tracking.parent"}:
        return
    made_of = json.loads((recipe.folder / RESULT).read_text(encoding="utf-8")).get("data")
    if made_of is None:
        yield "what data it is of is not noted in it"
        return
    present = data_params(load_tasks(recipe))
    for key in sorted(made_of.keys() | present.keys()):
        if made_of.get(key) != present.get(key):
            yield f"{key} was {made_of.get(key)} and is {present.get(key)}"


def _of_file(path: Path) -> Any:
    return read_plain_yaml(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _flat(values: Any, above: str = "") -> dict[str, Any]:
    if not isinstance(values, Mapping):
        return {above: values}
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{above}.{key}" if above else str(key))
    return found

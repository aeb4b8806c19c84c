"""The JSON Schema of recipe files, for editors."""

from __future__ import annotations

import inspect
import re
from typing import Any

from pydantic import BaseModel, TypeAdapter

from weft.core.few_shot import heads
from weft.core.unit.method import MethodConfig
from weft.eval.metrics.registry import METRICS
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.sections import Section
from weft.train.recipe.training import Recipe

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ENTRY = re.compile(r"^    (\w+): ((?:.+)(?:\n {8}.+)*)", re.MULTILINE)


def recipe_schema() -> dict[str, Any]:
    """The schema of recipe files of both kinds: every key with its meaning, and all known units, heads and metrics.

    A file that `extends` another may leave out what the other gives, so that no key is required here; `weft train
    --dry-run` says what is missing.
    """
    methods = TypeAdapter(MethodConfig).json_schema()
    definitions = methods.pop("$defs", {})
    for kind in (Recipe, FewShotRecipe):
        schema = kind.model_json_schema()
        definitions |= schema.pop("$defs", {})
        schema["properties"]["extends"] = {
            "type": "string",
            "description": "A recipe, relative to this file, that this one extends.",
        }
        definitions[kind.__name__] = schema
    recipe = definitions["Recipe"]["properties"]
    recipe["method"] |= methods
    # What `paper: true` lays over a recipe is part of one.
    recipe["paper_settings"] |= {"anyOf": [{"$ref": "#/$defs/Recipe"}, {"type": "null"}]}
    for key in ("metric", "published_metric"):
        definitions["TaskSection"]["properties"][key] |= {
            "anyOf": [{"enum": sorted(METRICS)}, {"type": "null"}]
        }
    _describe_heads(definitions)
    for section in _sections(Section):
        described = definitions.get(section.__name__)
        if described is not None:
            described.pop("required", None)
            described["description"] = (section.__doc__ or "").partition("\n")[0]
            for key, meaning in meanings(section).items():
                described["properties"][key]["description"] = meaning
    few_shot = FewShotRecipe.model_fields.keys() - Recipe.model_fields.keys()
    return {
        "$schema": DIALECT,
        "title": "weft recipe",
        "if": {"anyOf": [{"required": [key]} for key in sorted(few_shot)]},
        "then": {"$ref": "#/$defs/FewShotRecipe"},
        "else": {"$ref": "#/$defs/Recipe"},
        "$defs": definitions,
    }


def _describe_heads(definitions: dict[str, Any]) -> None:
    """Say what a head can contain in a few-shot recipe, and in its prompt stage."""
    for method, config in heads().items():
        schema = config.model_json_schema()
        definitions |= schema.pop("$defs", {})
        schema["properties"]["label"] = {"type": "string", "description": "How tables call the head."}
        schema["required"] = ["method"]
        definitions[f"head {method}"] = schema
    each = [{"$ref": f"#/$defs/head {method}"} for method in heads()]
    properties = definitions["FewShotRecipe"]["properties"]
    properties["heads"]["items"] = {"oneOf": each}
    properties["prompt_stage"]["anyOf"] = [{"$ref": "#/$defs/head coop"}, {"type": "null"}]


def meanings(section: type[BaseModel]) -> dict[str, str]:
    """Key of a section to its meaning, from the `Attributes:` of its docstring."""
    _, _, listed = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(listed)}


def _sections(base: type[BaseModel]) -> list[type[BaseModel]]:
    return [base, *(found for kind in base.__subclasses__() for found in _sections(kind))]

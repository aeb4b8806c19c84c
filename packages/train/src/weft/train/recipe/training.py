"""A recipe: one YAML file is one run. Unknown keys are errors, and all faults are reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from weft.train.errors import RecipeError
from weft.train.recipe.faults import faults_of, listed
from weft.train.recipe.files import apply_overrides, find_recipe, merge, read_yaml
from weft.train.recipe.sections import (
    AugmentSection,
    BackboneSection,
    ContrastSection,
    DataSection,
    EvaluationSection,
    MixingSection,
    PretrainingSection,
    Section,
    TaskSection,
    TokenizerSection,
    TrackingSection,
    TrainingSection,
)

__all__ = [
    "AugmentSection",
    "BackboneSection",
    "ContrastSection",
    "DataSection",
    "EvaluationSection",
    "MixingSection",
    "PretrainingSection",
    "Recipe",
    "TaskSection",
    "TokenizerSection",
    "TrackingSection",
    "TrainingSection",
    "load_recipe",
]


class Recipe(Section):
    """One run.

    Attributes:
        name: Name of the run and of its folder.
        label: How tables call the method; by default the name.
        backbone: The model that is adapted.
        method: A method of `weft.core`, or a list of them.
        tasks: Task name to task.
        training: How it is trained.
        evaluation: How it is scored.
        tracking: Where it is tracked.
        seed: Seed of weights, order and drawn targets, below 2**32.
        blank_images: Replace visual features by zeros, to measure what language alone can do.
        save_model: Also save the whole trained model in the folder `model` of the run, for `backbone.name` of
            other recipes. Only for methods without units, such as `full`.
        control: Whether tables list it as a control and not as a method.
        output: Folder of runs.
        published: Table of published numbers of the experiment this recipe follows, one of those that `weft compare
            --published list` names. Its rows with this recipe's label are shown by `weft train`, and never used.
        paper: Lay `paper_settings` over the recipe: what the authors' code does and few would choose.
        paper_settings: Values that `paper: true` sets. They come after the file and before `key.sub=value`.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    label: str | None = None
    backbone: BackboneSection
    method: Any
    tasks: dict[str, TaskSection] = Field(min_length=1)
    training: TrainingSection
    evaluation: EvaluationSection = EvaluationSection()
    tracking: TrackingSection = TrackingSection()
    seed: int = Field(default=0, ge=0, lt=2**32)
    blank_images: bool = False
    save_model: bool = False
    control: bool = False
    output: str = Field(default="weft-runs", min_length=1)
    published: str | None = None
    paper: bool = Field(default=False, strict=True)
    paper_settings: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_paper_settings(self) -> Recipe:
        if self.paper and self.paper_settings is None:
            raise ValueError(
                "`paper` must be false where the recipe has no `paper_settings`: it follows no paper's code"
            )
        return self

    @field_validator("tasks")
    @classmethod
    def _task_names(cls, tasks: dict[str, TaskSection]) -> dict[str, TaskSection]:
        for name in tasks:
            if not name.replace("_", "").isalnum() or name != name.lower():
                raise ValueError(
                    f"task names are lower-case letters, digits and underscores, but one is {name!r}"
                )
        return tasks

    @property
    def folder(self) -> Path:
        """Folder of this run."""
        return Path(self.output) / self.name

    @property
    def title(self) -> str:
        """How tables call the method."""
        return self.label or self.name


def load_recipe(source: str | Path | Mapping[str, Any], overrides: list[str] | None = None) -> Recipe:
    """Read, override and validate a recipe.

    Args:
        source: A path, a built-in name such as `demo/single_adapter`, or a dictionary.
        overrides: `key.sub=value` entries; values are read as YAML.

    Returns:
        The recipe.

    Raises:
        RecipeError: With every fault at once.
    """
    if isinstance(source, Mapping):
        values, shown = dict(source), "the recipe"
    else:
        path = find_recipe(source)
        values, shown = read_yaml(path), str(source)
    values = _with_paper(apply_overrides(values, overrides or []), overrides or [])
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
    faults: list[str] = []
    recipe: Recipe | None = None
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        faults += faults_of(error, Recipe, values.get("tasks"))
    return recipe, faults + (_method_faults(values["method"]) if "method" in values else [])


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

"""A recipe: one YAML file is one run. Unknown keys are errors, and all faults are reported at once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from weft.train.recipe.sections import (
    BackboneSection,
    EvaluationSection,
    Local,
    Section,
    TaskSection,
    TrackingSection,
    TrainingSection,
)


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
    output: Annotated[str, Field(min_length=1), Local] = "weft-runs"
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

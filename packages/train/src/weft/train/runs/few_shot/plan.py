"""How many parameters the heads of a few-shot recipe train, without weights or images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from weft.core.few_shot.image_head import ImageHead
from weft.train.backbones.encoders import architecture_of
from weft.train.errors import RunError
from weft.train.recipe.few_shot import FewShotRecipe, config_of, label_of


@dataclass(frozen=True)
class FewShotPlan:
    """Trained parameters of every head.

    Attributes:
        num_classes: Classes of the data set.
        width: Width of the features.
        trainable: Head to number of shots to trained parameters; a prompt stage has its own name.
        also: Further data sets by name.
        uncounted: Heads that adapt the encoder, whose architecture is not on this machine.
    """

    num_classes: int
    width: int
    trainable: dict[str, dict[int, int]]
    also: dict[str, FewShotPlan] = field(default_factory=dict)
    uncounted: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def __str__(self) -> str:
        lines = [f"{self.num_classes:,} classes, features of width {self.width:,}; trained parameters:"]
        for head, by_shots in self.trainable.items():
            counts = ", ".join(f"K={shots}: {count:,}" for shots, count in by_shots.items())
            lines.append(f"  {head}: {counts}")
        if self.uncounted:
            lines.append(f"  not counted, because their encoder is not here: {', '.join(self.uncounted)}")
        return "\n".join([*lines, *(f"{name}: {plan}" for name, plan in self.also.items())])


def plan_few_shot(recipe: FewShotRecipe) -> FewShotPlan:
    """Count what every head trains, for full classes.

    Args:
        recipe: A recipe that states `data.num_classes` and `encoder.width`.

    Raises:
        RunError: It does not state them.
    """
    return plan_parts(recipe.parts())


def plan_parts(parts: Mapping[str, FewShotRecipe]) -> FewShotPlan:
    """As `plan_few_shot`, for the data sets of a recipe one by one; see `FewShotRecipe.parts`."""
    first, *others = parts.items()
    plan = _plan(first[1])
    return replace(plan, also={name: _plan(part) for name, part in others})


def _plan(recipe: FewShotRecipe) -> FewShotPlan:
    classes, width = recipe.data.num_classes, recipe.encoder.width
    if classes is None or width is None:
        raise RunError(
            "`weft plan` needs the number of classes and the width of the features, which this recipe does not state. "
            "Set data.num_classes and encoder.width."
        )
    if recipe.protocol == "base_to_new":
        classes = (classes + 1) // 2
    configs = {label_of(head): config_of(head) for head in recipe.heads}
    within = {label for label, config in configs.items() if issubclass(config.head, ImageHead)}
    model = architecture_of(recipe.encoder) if within else None
    uncounted = within if model is None else set()
    trainable = {
        label: {
            shots: config.trainable_parameters(num_classes=classes, num_samples=shots * classes, width=width)
            + (0 if model is None else config.trained_within(model))
            for shots in recipe.shots
        }
        for label, config in configs.items()
        if label not in uncounted
    }
    if recipe.prompt_stage is not None:
        stage = config_of(recipe.prompt_stage)
        count = stage.trainable_parameters(num_classes=classes, num_samples=0, width=width)
        trainable["prompt_stage"] = dict.fromkeys(recipe.shots, count)
    return FewShotPlan(classes, width, trainable, uncounted=tuple(sorted(uncounted)))

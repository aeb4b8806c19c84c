"""A run in words: what is adapted, how its weights are shared, and how much of it is trained."""

from __future__ import annotations

from typing import Any

from weft.core.sharing import shared_in_words
from weft.train.recipe.training import Recipe


def in_a_sentence(recipe: Recipe, plan: Any) -> str:
    """Method, backbone, tasks and counts."""
    methods = " and ".join(dict.fromkeys(config.method for config in plan.configs))
    return (
        f"{recipe.title}: {methods} on {recipe.backbone.title}, for {', '.join(recipe.tasks)}; "
        f"{plan.trainable_parameters:,} of {plan.total_parameters:,} parameters trained ({plan.percent:.3g} %)."
    )


def sharing_lines(plan: Any) -> list[str]:
    """Across what the weights of each unit are shared, a line for each, and one for every rule."""
    return [
        line
        for config in plan.configs
        if config.parts
        for line in shared_in_words(config.label, config.sharing, config.parts)
    ]


def described(recipe: Recipe, plan: Any) -> str:
    """Both, as Markdown."""
    lines = [f"- {line}" for line in sharing_lines(plan)]
    return "\n\n".join([in_a_sentence(recipe, plan), *(["\n".join(lines)] if lines else [])])

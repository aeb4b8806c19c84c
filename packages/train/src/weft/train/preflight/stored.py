"""The feature stores that a recipe names: opened, compared with model and data before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.data.features.store import FeatureStore
from weft.eval.evaluate.stored import StoredFeatures, stored_features
from weft.train.errors import RunError
from weft.train.preflight.tasks import TaskData, images_of
from weft.train.recipe.sections import DataSection
from weft.train.recipe.training import Recipe
from weft.train.recipe.variables import expanded


def open_features(recipe: Recipe, tasks: Mapping[str, TaskData], config: Any) -> StoredFeatures | None:
    """Open the stores of a recipe and find every image and video of its tasks there.

    Returns:
        The features, or None if the recipe names no store.

    Raises:
        RunError: If a store does not fit `feature_size` and `num_visual_tokens` of the model's config.
        ScoreInputError: If images or videos have no features.
        MissingFileError: If a store is not there.
    """
    opened: dict[str, FeatureStore] = {}
    for section in recipe.tasks.values():
        for path in _paths(section.data):
            if path not in opened:
                opened[path] = FeatureStore(path)
                _check_width(path, opened[path], config)
    if not opened:
        return None
    _check_tokens(opened, config.num_visual_tokens)
    groups = [
        ([opened[path] for path in _paths(recipe.tasks[name].data)], images_of(data))
        for name, data in tasks.items()
    ]
    return stored_features(groups, tokens=config.num_visual_tokens, blank=recipe.blank_images)


def _paths(section: DataSection) -> list[str]:
    return [expanded(path, "data.features") for path in section.stores]


def _check_width(path: str, store: FeatureStore, config: Any) -> None:
    wanted = getattr(config, "feature_size", None)
    if wanted is None:
        raise RunError(
            f"`features` need a backbone that reads visual features, but this one is a {config.model_type}. Take "
            "a VL-BART or VL-T5, or leave them out."
        )
    if len(store.item_shape) != 2 or store.item_shape[1] != wanted:
        raise RunError(
            f"`features` must hold arrays of shape (tokens, {wanted}), as `backbone` says, but {path} holds "
            f"{tuple(store.item_shape)}. Set backbone.feature_size, or take the store of another encoder."
        )


def _check_tokens(stores: Mapping[str, FeatureStore], wanted: int) -> None:
    found = {path: wanted if store.ragged else store.item_shape[0] for path, store in stores.items()}
    if len(set(found.values())) > 1:
        raise RunError(
            "`features` must all hold the same number of tokens, but "
            f"{', '.join(f'{path} holds {tokens}' for path, tokens in found.items())}. Import them again with "
            f"--tokens {wanted}."
        )

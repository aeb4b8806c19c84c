"""Recipes, multi-task training and the weft command line; `train`, `look` and `evaluate` do the same in Python."""

from typing import TYPE_CHECKING

from weft.core.registry import lazy_names

if TYPE_CHECKING:
    from weft.train.runs.in_python import evaluate, look, train

__getattr__, __dir__ = lazy_names(__name__)
__all__ = ["evaluate", "look", "train"]

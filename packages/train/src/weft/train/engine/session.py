"""A recipe with everything that it names, assembled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from weft.eval.evaluate.read import ReaderBatches
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.output.progress import Progress
from weft.train.preflight.tasks import TaskData
from weft.train.processes import ONE, Processes
from weft.train.recipe.training import Recipe


@dataclass(frozen=True)
class Session:
    """What a run trains, scores and makes batches with.

    Attributes:
        recipe: The recipe.
        tasks: Its records.
        backbone: The model with its units, on the device of this process, and how it reads.
        batches: Makes its inputs.
        processes: The processes of the run.
        progress: Where to show progress.
    """

    recipe: Recipe
    tasks: Mapping[str, TaskData]
    backbone: LoadedBackbone
    batches: ReaderBatches
    processes: Processes = ONE
    progress: Progress = field(default_factory=Progress)

    @property
    def model(self) -> Any:
        """The adapted model."""
        return self.backbone.model

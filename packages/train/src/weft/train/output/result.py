"""What a run gave, and the files that hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.data.processes.atomic import write_text
from weft.eval.metrics import ScoreReport
from weft.train.errors import RunError
from weft.train.recipe.training import Recipe

RESULT = "result.json"
ADAPTER = "adapter"


@dataclass(frozen=True)
class Result:
    """What a run gave.

    Attributes:
        folder: The run's folder.
        scores: Task to its headline score; `average` is their mean.
        trainable: Trained parameters.
        total: All parameters.
        seconds: Wall time of training and evaluation; of a run that was resumed, that of all its legs, each up to the
            checkpoint that the next one began with.
        reports: Task to its whole report.
    """

    folder: Path
    scores: Mapping[str, float]
    trainable: int
    total: int
    seconds: float
    reports: Mapping[str, Mapping[str, Any]]


def average(reports: Mapping[str, ScoreReport]) -> dict[str, float]:
    """Headline score of every task in percent, and their mean as `average`."""
    scores = {name: report.percent for name, report in reports.items()}
    return scores | {"average": sum(scores.values()) / len(scores)} if scores else {}


def make_result(recipe: Recipe, plan: Any, reports: Mapping[str, ScoreReport], seconds: float) -> Result:
    """The result of a run, from its plan and the reports of its tasks."""
    return Result(
        folder=recipe.folder,
        scores=average(reports),
        trainable=plan.trainable_parameters,
        total=plan.total_parameters,
        seconds=seconds,
        reports={name: report.to_dict() for name, report in reports.items()},
    )


def result_values(recipe: Recipe, result: Result, data: Mapping[str, str]) -> dict[str, Any]:
    """A result as plain data, as `result.json` holds it, with what it was made of as noted at the start of the run."""
    return {
        "name": recipe.name,
        "method": recipe.title,
        "seed": recipe.seed,
        "control": recipe.control,
        "scores": dict(result.scores),
        "trainable": result.trainable,
        "total": result.total,
        "seconds": result.seconds,
        "data": dict(data),
        "reports": dict(result.reports),
    }


def is_unscored(folder: Path) -> bool:
    """Whether a run is trained, and ended before it was scored."""
    return (folder / ADAPTER).is_dir() and not (folder / RESULT).is_file()


def check_finished(folder: Path, argument: str) -> None:
    """Refuse a folder that is not that of a finished run.

    Raises:
        RunError: If it lacks the recipe or the adapter.
    """
    if not (folder / "recipe.yaml").is_file() or not (folder / ADAPTER).is_dir():
        raise RunError(
            f"`{argument}` must be the folder of a finished run, with recipe.yaml and adapter/, but {folder} is not. "
            "Give the folder that `weft train` named at its end."
        )


def as_json(values: Any) -> str:
    """Plain data as the text of a file."""
    return json.dumps(values, indent=1, ensure_ascii=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """Write plain data as JSON, in one step that cannot be seen half done."""
    write_text(path, as_json(values))

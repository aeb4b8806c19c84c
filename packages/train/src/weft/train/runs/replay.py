"""The batch of a NaN loss, made again from what the run wrote down about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.data import Record
from weft.train.engine.task_losses import nan_file
from weft.train.errors import RunError
from weft.train.output.run_files import as_written, read_json
from weft.train.preflight.learned import load_learnable
from weft.train.recipe.loading import load_recipe
from weft.train.runs.open_session import open_session
from weft.train.runs.origin import check_data, origin_of


@dataclass(frozen=True)
class ReplayedBatch:
    """A batch as the model saw it.

    Attributes:
        step: Steps done before it.
        epoch: Epoch it was drawn in, from 0.
        tasks: Task of each row.
        records: Record of each row.
        losses: Loss of each row, as it was found.
        inputs: What the model was called with.
    """

    step: int
    epoch: int
    tasks: tuple[str, ...]
    records: tuple[Record, ...]
    losses: tuple[float, ...]
    inputs: Mapping[str, Any]


def nan_batch(run: Path | str, rank: int = 0) -> ReplayedBatch:
    """Make the batch again that ended a run, from the run's recipe and the ids in its `nan-batch.json`.

    Args:
        run: Folder of the run.
        rank: Number of the process that found it, where there were several.

    Returns:
        The batch, the same to the last bit: texts, targets and shifts depend on seed, epoch and record alone.

    Raises:
        RunError: If the folder holds no such batch, or the data are no longer what it was
            started with.
    """
    folder = Path(run)
    file = folder / nan_file(rank)
    if not file.is_file() or not (folder / "recipe.yaml").is_file():
        raise RunError(
            f"`run` must be the folder of a run that a loss ended, with recipe.yaml and {file.name}, but {folder} is "
            "not. Give the folder that the message named."
        )
    noted = read_json(file)
    recipe = load_recipe(folder / "recipe.yaml")
    tasks = load_learnable(recipe)
    check_data(folder, origin_of(recipe, tasks), "`run`")
    batches = open_session(recipe, tasks, folder=folder).batches
    known = {name: {record.id: record for record in data["train"]} for name, data in tasks.items()}
    with as_written(file):
        rows = [(row["task"], known[row["task"]][row["record"]]) for row in noted["rows"]]
        losses = tuple(float(row["loss"]) for row in noted["rows"])
        step, epoch = int(noted["step"]), int(noted["epoch"])
    batch = batches.training(rows, epoch=epoch)["batch"]
    inputs = {**batch.inputs, "labels": batch.labels, "weights": batch.weights}
    return ReplayedBatch(
        step, epoch, tuple(task for task, _ in rows), tuple(record for _, record in rows), losses, inputs
    )

"""What a run would do, found out without weights: plan, steps, memory, a check of the data, the first batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.core import plan
from weft.data import dataset_spec
from weft.data.records.contact_sheet import contact_sheet
from weft.data.sampling.mixing import TaskMixture
from weft.eval.readers import Reader
from weft.eval.readers.preview import preview
from weft.train.backbones.loading import planned_model, reader_of
from weft.train.engine.schedule import make_mixture, total_steps
from weft.train.output.first_batch import SHOWN, counted, picture_path, save_picture
from weft.train.output.folders import require_new
from weft.train.preflight.classes import classes_of
from weft.train.preflight.fitness import check_device, check_fit
from weft.train.preflight.learned import left_out_of, load_learnable
from weft.train.preflight.lengths import check_lengths
from weft.train.preflight.memory import Memory, estimate_memory
from weft.train.preflight.reading import reader_batches
from weft.train.preflight.tasks import TaskData, check_recipe, sizes_of
from weft.train.processes import join_processes
from weft.train.recipe.published import published_of, shown
from weft.train.recipe.training import Recipe
from weft.train.runs.origin import media_of

_PER_TASK = 4


@dataclass(frozen=True)
class DryRun:
    """What a run would do.

    Attributes:
        plan: Sites, slots and counts.
        records: Task to role to number of records.
        official: The same where the data set states its size officially.
        steps: Optimiser steps.
        rows: Task to rows of one epoch.
        memory: Of one device.
        texts: What rows read and write: the first of the first batch, or of each task's first batch.
        picture: Where those rows are drawn.
        published: What others printed for this method, one line each.
        notes: How the model is read, and what is left out of the data, one line each.
    """

    plan: Any
    records: Mapping[str, Mapping[str, int]]
    official: Mapping[str, Mapping[str, int]]
    steps: int
    rows: Mapping[str, int]
    memory: Memory
    texts: tuple[str, ...]
    picture: Path
    published: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [str(self.plan), "", f"steps      {self.steps:,}", f"memory     {self.memory}", "data"]
        for task, roles in self.records.items():
            stated = self.official[task]
            counts = [f"{role} {counted(found, stated.get(role))}" for role, found in roles.items()]
            lines.append(f"  {task}: {', '.join(counts)}; {self.rows[task]:,} rows an epoch")
        lines += [f"  {note}" for note in self.notes]
        lines += ["published", *(f"  {line}" for line in self.published)] if self.published else []
        lines += [f"first batch, drawn in {self.picture}", *(f"  {text}" for text in self.texts)]
        return "\n".join(lines)


def dry_run(
    recipe: Recipe,
    picture: Path | None = None,
    *,
    tasks: Mapping[str, TaskData] | None = None,
    again: bool = False,
) -> DryRun:
    """Check everything that a run needs and say what it would do; no weight is loaded, no step taken.

    Of a model that its own processor reads, the first rows are shown as the model reads them: the prompt with its
    special tokens, and the tokens that are learned. Of others the tokenizer is not loaded either.

    Args:
        recipe: The recipe.
        picture: Where the first batch is drawn; by default `NAME-first-batch.png` in the recipe's `output`.
        tasks: Its records, if they are loaded already.
        again: Whether the run may have begun already, as with `--resume` and `--overwrite`.

    Raises:
        RecipeError, RunError, WeftDataError: Whatever the run itself would raise before its first step.
    """
    check_device(recipe, join_processes())
    check_recipe(recipe)
    if not again:
        require_new(recipe.folder, resumes=True)
    tasks = tasks or load_learnable(recipe)
    check_fit(recipe, tasks)
    media_of(recipe, tasks)  # for its complaints about absent files
    published = published_of(recipe)
    mixture = make_mixture(recipe, sizes_of(tasks))
    reader = reader_of(recipe.backbone)
    lengths = check_lengths(recipe, tasks, reader)
    model = planned_model(recipe.backbone)
    planned = plan(model, recipe.method, list(recipe.tasks))
    path = picture or picture_path(recipe)
    notes = [*left_out_of(tasks), *lengths]
    if not reader.paired:
        stored = recipe.training.vision == "stored"
        tower = "extracts features once, and training reads them" if stored else "runs in every batch"
        notes.append(f"read as {reader.name!r} by its own processor; its vision tower {tower}")
    return DryRun(
        plan=planned,
        records={
            name: {role: len(records) for role, records in data.splits.items()}
            for name, data in tasks.items()
        },
        official={name: _official(recipe, name) for name in tasks},
        steps=total_steps(recipe, mixture),
        rows=mixture.rows_per_epoch,
        memory=estimate_memory(recipe, planned, model),
        texts=_draw(recipe, tasks, _first_rows(mixture), path, reader),
        picture=path,
        published=tuple(shown(published)),
        notes=tuple(notes),
    )


def _official(recipe: Recipe, task: str) -> dict[str, int]:
    data = recipe.tasks[task].data
    stated = dataset_spec(data.name).expected
    splits = {role: getattr(data, role) for role in ("train", "validation", "test") if role not in data.sizes}
    return {
        role: stated[split] for role, split in splits.items() if isinstance(split, str) and split in stated
    }


def _first_rows(mixture: TaskMixture) -> list[tuple[str, int]]:
    """The first rows of the first batch; where a batch holds one task, the first of the first batch of each."""
    if mixture.unit == "mixed" or len(mixture.tasks) == 1:
        return mixture.batch(0, 0)[:SHOWN]
    found: dict[str, list[tuple[str, int]]] = {}
    for step in range(len(mixture)):
        batch = mixture.batch(step, 0)
        found.setdefault(batch[0][0], batch[:_PER_TASK])
        if len(found) == len(mixture.tasks):
            break
    return [row for task in mixture.tasks for row in found.get(task, [])]


def _draw(
    recipe: Recipe,
    tasks: Mapping[str, TaskData],
    rows: list[tuple[str, int]],
    path: Path,
    reader: Reader,
) -> tuple[str, ...]:
    records = [tasks[task]["train"][row] for task, row in rows]
    batches = reader_batches(recipe, reader, classes=classes_of(recipe, tasks))
    texts = [
        f"{task}: {preview(batches.reader, batches.row(task, record, 0))}"
        for (task, _), record in zip(rows, records, strict=True)
    ]
    opened = all(task.data.features is None for task in recipe.tasks.values())
    save_picture(contact_sheet(records, texts=texts, require_media=opened), path)
    return tuple(texts)

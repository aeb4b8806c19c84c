"""The records of a recipe's tasks, loaded and checked before any long work starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from weft.data import Caption, MediaRef, Record, load_dataset
from weft.data.catalog import streamed_datasets
from weft.eval.metrics.registry import METRICS
from weft.train.backbones.from_scratch import texts_of
from weft.train.errors import RecipeError, RunError, near
from weft.train.recipe.sections import DataSection, TokenizerSection
from weft.train.recipe.training import Recipe
from weft.train.recipe.variables import expanded, expanded_options

Role = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class TaskData:
    """Records of one task by role; a role without a split is absent.

    Attributes:
        splits: Role to its records.
        left_out: Why records to train on were left out, and how many.
    """

    splits: Mapping[str, Any]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, role: str) -> Any:
        return self.splits[role]

    def __contains__(self, role: str) -> bool:
        return role in self.splits


def roles_of(recipe: Recipe) -> tuple[Role, ...]:
    """The roles that a run of the recipe reads: validation records only if it validates."""
    return ("train", "validation", "test") if recipe.training.evaluate_every else ("train", "test")


def load_tasks(recipe: Recipe, roles: tuple[Role, ...] | None = None) -> dict[str, TaskData]:
    """Load the annotations of every task, of the given roles or those of `roles_of`; images stay closed.

    Raises:
        RunError: If a split is empty or smaller than a batch.
        WeftDataError: If files are missing or malformed; see `weft.data`.
    """
    tasks: dict[str, TaskData] = {}
    for name, task in recipe.tasks.items():
        named = {role: getattr(task.data, role) for role in roles or roles_of(recipe)}
        tasks[name] = TaskData(
            {role: _load(name, task.data, role, split) for role, split in named.items() if split is not None}
        )
        check_batch_size(recipe, name, tasks[name])
    return tasks


def check_batch_size(recipe: Recipe, name: str, data: TaskData) -> None:
    """Refuse a task with fewer records to train on than one of its batches has rows.

    Raises:
        RunError: Naming both numbers.
    """
    batch = recipe.tasks[name].batch_size or recipe.training.batch_size
    if "train" in data and len(data["train"]) < batch:
        raise RunError(
            f"`batch_size` of task {name!r} must be at most its training records ({len(data['train'])}), but "
            f"is {batch}. Lower tasks.{name}.batch_size or training.batch_size."
        )


def _load(task: str, data: DataSection, role: Role, split: str | list[str]) -> Any:
    place = f"tasks.{task}.data"
    root = None if data.root is None else expanded(data.root, f"{place}.root")
    options = expanded_options(data.options, f"{place}.options")
    if role != "train":
        options |= expanded_options(data.test_options, f"{place}.test_options")
    names = [split] if isinstance(split, str) else split
    how: dict[str, Any] = {
        "require_media": data.features is None,
        "streaming": data.streaming and role == "train",
    }
    parts = [load_dataset(data.name, root=root, split=name, **how, **options) for name in names]
    records = parts[0] if len(parts) == 1 else _joined(parts)
    if role == "train" and data.each_caption:
        records = records.with_records([single for record in records for single in _one_caption_each(record)])
    if data.pretraining is not None:
        from weft.train.preflight.pretraining import pretraining_records

        records = pretraining_records(records, data.pretraining)
    size = data.sizes.get(role)
    if size is not None:
        records = records[:size]
    if len(records) == 0:
        raise RunError(
            f"The split {split!r} of data set {data.name!r} (task {task!r}) must hold records, but is empty. "
            "Check `options` and `sizes`."
        )
    return records


def sizes_of(tasks: Mapping[str, TaskData]) -> dict[str, int]:
    """Task to its number of training records."""
    return {name: len(data["train"]) for name, data in tasks.items()}


def _joined(parts: list[Any]) -> Any:
    """Several splits one after another; ids are kept apart by the name of their split."""
    records = [replace(record, id=f"{part.split}/{record.id}") for part in parts for record in part]
    return parts[0].with_records(records, "+".join(part.split for part in parts))


def _one_caption_each(record: Record) -> list[Record]:
    if not isinstance(record, Caption):
        return [record]
    return [
        replace(record, id=f"{record.id}#{number}", captions=(caption,))
        for number, caption in enumerate(record.captions)
    ]


def _streaming_faults(recipe: Recipe) -> list[str]:
    """What a recipe asks for that needs a list of the records that it streams."""
    faults = []
    for name, task in recipe.tasks.items():
        if not task.data.streaming:
            continue
        able = streamed_datasets()
        wrong = {
            f"a data set that is not one of {', '.join(able)}": task.data.name not in able,
            "several training splits": not isinstance(task.data.train, str),
            "`each_caption`": task.data.each_caption,
            "`pretraining`": task.data.pretraining is not None,
            "`sizes.train`": "train" in task.data.sizes,
            "`features`": task.data.features is not None,
            "`training.vision: stored`, which extracts the features of all pictures first": (
                recipe.training.vision == "stored"
            ),
            "a tokenizer that is trained on all texts": isinstance(
                recipe.backbone.tokenizer, TokenizerSection
            ),
        }
        found = [words for words, is_so in wrong.items() if is_so]
        if found:
            faults.append(
                f"tasks.{name}.data.streaming: this must be false with what needs a list of all training records, but "
                f"is true with {' and '.join(found)}."
            )
    return faults


def all_images(tasks: Mapping[str, TaskData]) -> list[Any]:
    """Every image of every split, repeated ones once."""
    found: dict[str, Any] = {}
    for data in tasks.values():
        for ref in images_of(data):
            found.setdefault(ref.place, ref)
    return list(found.values())


def images_of(data: TaskData) -> Iterator[MediaRef]:
    """Every image or video of one task's splits, as often as it comes."""
    return (ref for records in data.splits.values() for record in records for ref in record.media_refs())


def training_texts(recipe: Recipe, tasks: Mapping[str, TaskData]) -> list[str]:
    """Every text that training reads and writes, for a tokenizer to be trained on."""
    each = (texts_of(recipe.tasks[name].prompt, data["train"]) for name, data in tasks.items())
    return list(dict.fromkeys(chain.from_iterable(each)))


def check_recipe(recipe: Recipe) -> None:
    """Refuse what only the rest of weft can know to be wrong: backbones, metrics, and roles that no task has.

    Raises:
        RecipeError: With every fault.
    """
    faults = [
        f"tasks.{name}.{key}: unknown metric {metric!r}. {near(metric, METRICS)}"
        for name, task in recipe.tasks.items()
        for key, metric in (("metric", task.metric), ("published_metric", task.published_metric))
        if metric is not None and metric not in METRICS
    ]
    name = recipe.backbone.name
    if name is not None and name != "miniature" and "/" not in name and not Path(name).expanduser().is_dir():
        faults.append(
            "backbone.name: this must be 'miniature', a folder, or a hub id such as 'organisation/model', but is "
            f"{name!r}. {near(name, ['miniature'])}"
        )
    given = [name for name, task in recipe.tasks.items() if task.data.features is not None]
    if given and recipe.training.vision == "trained":
        faults.append(
            "training.vision: this must be 'frozen' where `features` are given, but is 'trained'. Leave the "
            "features out to train the tower."
        )
    if given:
        faults += [
            f"tasks.{name}.data.features: every task of a run needs `features` if one has them, but this has none."
            for name in recipe.tasks
            if name not in given
        ]
    if recipe.training.evaluate_every:
        faults += [
            f"tasks.{name}.data.validation: `training.evaluate_every` needs a validation split, but there is none."
            for name, task in recipe.tasks.items()
            if task.data.validation is None
        ]
    faults += _streaming_faults(recipe)
    if recipe.training.sharded and recipe.save_model:
        faults.append(
            "training.sharded: this must be false with `save_model`, because no process then holds the whole model, "
            "but is true."
        )
    if faults:
        raise RecipeError("\n".join(["the recipe cannot be run:", *(f"  - {fault}" for fault in faults)]))

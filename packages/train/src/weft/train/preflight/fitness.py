"""Whether a recipe's model, method and tasks fit together, found out before any weight is loaded."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from weft.core import parse_method, plan
from weft.data import Record
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.inputs import example
from weft.eval.evaluate.kinds import kind_of, metric_of
from weft.eval.evaluate.metric_fit import check_metric, check_targets
from weft.eval.evaluate.predict import unfit
from weft.eval.readers import Reader
from weft.train.backbones.loading import planned_model, reader_of
from weft.train.backbones.processor_features import check_stored
from weft.train.errors import RunError, near
from weft.train.objectives import compares_rows
from weft.train.preflight.answers import read_answers
from weft.train.preflight.classes import check_classes, is_classified
from weft.train.preflight.packing import check_packing
from weft.train.preflight.reading import check_plain_keys, check_reading
from weft.train.preflight.stored import open_features
from weft.train.preflight.tasks import TaskData, images_of
from weft.train.processes import ONE, Processes
from weft.train.recipe.training import Recipe


def check_fit(recipe: Recipe, tasks: Mapping[str, TaskData], processes: Processes = ONE) -> None:
    """Refuse tasks and stages that the backbone cannot do, and saving a model whose training is not in its own weights.

    Raises:
        RunError: With the first fault.
        ScoreInputError: If stored features are missing.
    """
    reader = reader_of(recipe.backbone)
    if reader.paired:
        check_plain_keys(recipe, tasks)
        _check_tower(recipe, reader)
    model = planned_model(recipe.backbone)
    for name, data in tasks.items():
        _check_task(recipe, name, data, reader, type(model).__name__)
    check_classes(recipe, tasks, reader)
    if reader.paired:
        _check_batches(recipe, tasks)
    else:
        check_reading(recipe, tasks, reader, processes)
        if recipe.training.vision == "stored":
            check_stored(reader, model, plan(model, recipe.method, list(recipe.tasks)))
        if recipe.training.packing:
            check_packing(reader, plan(model, recipe.method, list(recipe.tasks)))
    check_objectives(tasks, processes, reader)
    check_balance(recipe)
    open_features(recipe, tasks, model.config)
    planned = plan(model, recipe.method, list(recipe.tasks))
    known, units = planned.components, planned.units
    _check_heads_learn(recipe, known)
    for word in recipe.training.learning_rates:
        if word not in known:
            raise RunError(
                f"`training.learning_rates` must name components that the method trains, but one is {word!r}. "
                f"{near(word, known)}"
            )
    unmatched = reader.lacking("match") if recipe.evaluation.rerank else None
    if unmatched is not None:
        raise RunError(
            f"`evaluation.rerank` must be 0 for a backbone without a matching head, but is {recipe.evaluation.rerank} "
            f"and {unmatched}. Leave it out, or take a BLIP."
        )
    if recipe.save_model and units:
        raise RunError(
            f"`save_model` must be false where the method has units, but this one has {len(units)}: their weights lie "
            "in the run's adapter, not in the model. Leave it out, or train with `method: full`."
        )


def _check_heads_learn(recipe: Recipe, trained: Collection[str]) -> None:
    """Refuse heads of new weights that a method leaves as they are."""
    if recipe.backbone.heads is not None and not {"heads", "everything"} & set(trained):
        raise RunError(
            "`method` must train the heads that `backbone.heads` adds, but trains "
            f"{', '.join(trained) or 'nothing'}. Add train_full: [heads]."
        )


def _check_tower(recipe: Recipe, reader: Reader) -> None:
    """Refuse a tower that would be run once, of streamed pictures or of a model that does not read what it gives."""
    streamed = [name for name, task in recipe.tasks.items() if task.data.streaming]
    if streamed and recipe.training.vision == "frozen":
        raise RunError(
            "`training.vision` must be 'trained' for a model of weft's own whose records are streamed, but is "
            f"'frozen', which extracts the features of all pictures first, and task {streamed[0]!r} is streamed. Set "
            "training.vision=trained, or data.streaming=false."
        )
    given = any(task.data.features is not None for task in recipe.tasks.values())
    if recipe.training.vision != "trained" and not given and "features" not in reader.abilities:
        raise RunError(
            f"`training.vision` must be 'trained' for {reader.title} because it does not read features in the place of "
            f"pictures, but is {recipe.training.vision!r}. Set training.vision=trained; what the method leaves out of "
            "the tower stays frozen."
        )


def _check_task(recipe: Recipe, name: str, data: TaskData, reader: Reader, kind: str) -> None:
    """Refuse what a backbone of a kind, by what its reader is able to do, cannot do of one task."""
    task, records = recipe.tasks[name], next(iter(data.splits.values()))
    reason = unfit(reader, records)
    if reason is not None:
        raise RunError(
            f"`backbone` must be able to do task {name!r}, but {reason}. Take another backbone, or "
            "another type of record: see `weft data show`."
        )
    if task.choose_from is not None:
        read_answers(name, task.choose_from)
        if kind_of(records).mode != "generate":
            raise RunError(
                f"`tasks.{name}.choose_from` must be left out of a task that writes no answers, but its records are "
                f"of type {kind_of(records).record_type!r}."
            )
    if task.answers == "all" and not reader.weighs:
        raise RunError(
            f"`tasks.{name}.answers` must be 'drawn' for a backbone that has one target for each question, but is "
            f"'all' and the backbone is a {kind}. Leave it out, or take a BLIP that answers."
        )
    if recipe.training.augment is not None and any(ref.kind == "video" for ref in images_of(data)):
        raise RunError(
            f"`training.augment` must be left out where a task has videos, but {name!r} has. Their frames are "
            "drawn at random anyway."
        )
    _check_scores(recipe, name, data)
    _check_answers(recipe, name, data)
    if "train" in data:
        try:
            check_targets(data["train"])
        except ScoreInputError as error:
            raise RunError(f"Task {name!r} cannot be trained. {error}") from None


def _check_scores(recipe: Recipe, name: str, data: TaskData) -> None:
    section = recipe.tasks[name]
    for role in ("validation", "test"):
        if role in data:
            try:
                check_metric(section.metric or metric_of(data[role]), data[role], section.headline)
                if section.published_metric is not None:
                    check_metric(section.published_metric, data[role])
            except ScoreInputError as error:
                raise RunError(f"Task {name!r} cannot be scored on its {role} split. {error}") from None


def _check_answers(recipe: Recipe, name: str, data: TaskData) -> None:
    """Refuse training records none of which has anything to learn: they would silently train at weight 0."""
    if "train" not in data:
        return
    records = data["train"]
    all_answers = recipe.tasks[name].answers == "all"

    def weighs(record: Record) -> bool:
        if all_answers:
            return bool(getattr(record, "answers", ()))
        return example(record, name, seed=recipe.seed, epoch=0).weight > 0

    if not any(map(weighs, records)):
        kept = ", or train on one answer of each (`answers: drawn`)" if all_answers else ""
        raise RunError(
            f"`tasks.{name}.data.train` must name records with answers, but none of its {len(records):,} has one: all "
            f"would weigh nothing. Take a split whose answers are not hidden, and see `weft data check`{kept}."
        )


def _check_batches(recipe: Recipe, tasks: Mapping[str, TaskData]) -> None:
    """Refuse records that cannot share a batch: weft's own models read equally many images in each row."""
    mixed = recipe.training.mixing.unit == "mixed"
    trained: dict[int, str] = {}
    for name, data in tasks.items():
        for role, records in data.splits.items():
            if role == "train" and recipe.tasks[name].data.streaming:
                continue  # known when they are drawn
            counts = {len(record.media_refs()) for record in records}
            if role == "train" and mixed:
                trained |= dict.fromkeys(counts, name)
            if len(counts) > 1:
                raise RunError(
                    f"`tasks.{name}.data.{role}` must show the same number of images in every record, but some show "
                    f"{min(counts)} and some {max(counts)}. Make a task of each, or take a model with a processor of "
                    "transformers under `backbone.name`."
                )
    if len(trained) > 1:
        shown = " and ".join(f"{count} (task {name!r})" for count, name in sorted(trained.items()))
        raise RunError(
            "`training.mixing.unit` must be 'homogeneous' where tasks show other numbers of images, but is 'mixed' and "
            f"they show {shown}. Leave it out, or take a model with a processor of transformers under `backbone.name`."
        )


def check_device(recipe: Recipe, processes: Processes) -> None:
    """Refuse what the device of a run cannot do, and what its libraries would silently leave out.

    Raises:
        RunError: If `training.precision` is fp16 and there is no GPU.
    """
    if recipe.training.precision == "fp16" and processes.device.type == "cpu":
        raise RunError(
            "`training.precision` must be 'fp32' or 'bf16' on a CPU, but is 'fp16', which the trainer would leave out "
            "without a word. Set training.precision=bf16, or run it on a GPU."
        )


def check_balance(recipe: Recipe) -> None:
    """Refuse balances of tasks' gradients where units add to the loss of a batch, which is of no task.

    Raises:
        RunError: If they do.
    """
    balance = recipe.training.balance
    if balance not in ("gradnorm", "pcgrad"):
        return
    owing = [one.method for one in parse_method(recipe.method) if one.owes]
    if owing:
        raise RunError(
            f"`training.balance` must not be {balance!r} where units add to the loss of a batch, but {owing[0]!r} "
            "does: that loss is of no task. Take 'uncertainty', or leave the unit's loss out."
        )


def check_objectives(tasks: Mapping[str, TaskData], processes: Processes, reader: Reader) -> None:
    """Refuse several processes where the loss of a row depends on the other rows of its batch.

    Raises:
        RunError: With the first task.
    """
    for name, data in tasks.items():
        if processes.size > 1 and compares_rows(reader) and not is_classified(data):
            raise RunError(
                f"Task {name!r} must be trained by one process, but there are {processes.size}: its objective "
                f"{reader.objective!r} compares the rows of a batch with one another, and each process would see only "
                "its own. Start weft without a launcher, or leave the task out."
            )

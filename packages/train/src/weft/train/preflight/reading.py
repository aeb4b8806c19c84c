"""What a model's own reader makes of the records of a run, found out before any weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from weft.data import Conversation, Record
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.stored_pictures import StoredPictures
from weft.eval.readers import Limits, Reader, ReaderError, Wording
from weft.eval.readers.classes import Classes
from weft.eval.readers.packing import packed
from weft.train.errors import RunError
from weft.train.preflight.tasks import TaskData
from weft.train.processes import ONE, Processes
from weft.train.recipe.sections import TaskSection
from weft.train.recipe.training import Recipe

_CUT = 64  # where texts and targets are cut that no limit is given for


def text_rules(task: TaskSection) -> TextRules:
    """The rules by which the texts of a task are written."""
    return TextRules(
        prompt=task.prompt,
        prompt_at=task.prompt_at,
        max_text_tokens=task.max_text_tokens or _CUT,
        max_target_tokens=task.max_target_tokens or _CUT,
        max_new_tokens=task.max_new_tokens,
        num_beams=task.num_beams,
        no_repeat_ngram_size=task.no_repeat_ngram_size,
        early_stopping=task.early_stopping,
        answers=task.answers,
    )


def reader_batches(
    recipe: Recipe,
    reader: Reader,
    stored: StoredPictures | None = None,
    classes: Mapping[str, Classes] = MappingProxyType({}),
) -> ReaderBatches:
    """What makes the batches of a run.

    Args:
        recipe: The recipe.
        reader: The reader of its backbone.
        stored: Features that training reads in the place of pictures, or None.
        classes: Task to its classes, of tasks that have such.

    Raises:
        ReaderError: If the words of a task do not read as such.
    """
    training = recipe.training
    return ReaderBatches(
        packed(reader) if training.packing else reader,
        {name: text_rules(task) for name, task in recipe.tasks.items()},
        {name: _wording(task) for name, task in recipe.tasks.items()},
        seed=recipe.seed,
        limits=Limits(tokens=training.max_tokens, too_long=training.too_long),
        # Where the run shows pictures, it shows blank ones itself.
        blank=recipe.blank_images and not reader.paired,
        stored=stored,
        classes=classes,
    )


def _wording(task: TaskSection) -> Wording:
    return Wording("{text}" if task.ask is None else task.ask, task.system, task.learn)


def check_reading(
    recipe: Recipe, tasks: Mapping[str, TaskData], reader: Reader, processes: Processes = ONE
) -> None:
    """Refuse what the reader of a model cannot do, and records that it cannot read; no picture is opened.

    Raises:
        RunError: With the first fault; of a record it names task, role, record and picture.
    """
    _check_keys(recipe, reader)
    trained = any("train" in data for data in tasks.values())
    if trained and processes.size > 1 and not reader.calls_whole:
        raise RunError(
            f"{reader.title} must be trained by one process, but there are {processes.size}: its parts are called one "
            "by one, which several processes do not hear of. Start weft without a launcher."
        )
    try:
        batches = reader_batches(recipe, reader)
    except ReaderError as error:
        raise RunError(f"`tasks` must say what is asked. {error}") from None
    for name, data in tasks.items():
        for role, records in data.splits.items():
            _check_records(batches, name, role, records)
        if recipe.training.vision == "stored" and "train" in data:
            _check_stills(name, data["train"])


def _check_records(batches: ReaderBatches, task: str, role: str, records: Sequence[Record]) -> None:
    reader = batches.reader.limited(batches.limits) if role == "train" else batches.asker
    kind = kind_of(records)
    for record in records:
        try:
            said = batches.rules[task].written(kind.text(record))
            reader.check(batches.wordings[task].row(record, task, said))
        except ReaderError as error:
            shown = "".join(f" It shows {ref.uri}." for ref in record.media_refs()[:1])
            raise RunError(f"Task {task!r} cannot be read on its {role} split: {error}{shown}") from None


def _check_stills(task: str, records: Sequence[Record]) -> None:
    film = next((ref for record in records for ref in record.media_refs() if ref.kind == "video"), None)
    if film is not None:
        raise RunError(
            f"`training.vision` must be 'frozen' or 'trained' where videos are trained on, but is 'stored', and task "
            f"{task!r} shows {film.uri}. Leave it out."
        )


def _check_keys(recipe: Recipe, reader: Reader) -> None:
    """Refuse keys that have no meaning here, instead of silently leaving them out."""
    training = recipe.training
    faults = [
        (f"training.{key}", "this model's own processor shows pictures as it was trained with")
        for key, given in (("shift", training.shift), ("augment", training.augment))
        if given
    ]
    for name, task in recipe.tasks.items():
        if task.max_text_tokens is not None:
            faults.append((f"tasks.{name}.max_text_tokens", "no text is cut here; give training.max_tokens"))
        if task.data.features is not None:
            kept = "features of its own are kept beside the runs; set training.vision=stored"
            faults.append((f"tasks.{name}.data.features", kept))
    if training.packing and training.compile is not None:
        faults.append(("training.packing", "`compile` needs batches of few shapes"))
    if training.vision == "stored" and recipe.blank_images:
        faults.append(("training.vision", "grey pictures have no stored features"))
    if recipe.evaluation.rerank and "match" not in reader.abilities:
        faults.append(("evaluation.rerank", "this model has no matching head"))
    if training.checkpointing and not reader.recomputes:
        in_place = "this model adds to its embeddings in place, and cannot do so again"
        faults.append(("training.checkpointing", in_place))
    if training.too_long == "cut" and reader.objective != "contrastive":
        faults.append(("training.too_long", "rows with answers are never cut; take 'refuse' or 'drop'"))
    if faults:
        key, reason = faults[0]
        raise RunError(f"`{key}` must be left out for {reader.title} because {reason}.")


def check_plain_keys(recipe: Recipe, tasks: Mapping[str, TaskData]) -> None:
    """Refuse what only models have that their own processor reads: some keys, and conversations.

    Raises:
        RunError: With the first.
    """
    given = [f"training.{key}" for key in ("max_tokens", "packing") if getattr(recipe.training, key)]
    given += ["training.too_long"] if recipe.training.too_long != "refuse" else []
    given += [
        f"tasks.{name}.{key}"
        for name, task in recipe.tasks.items()
        for key, plain in (("ask", None), ("system", ""), ("learn", "last"))
        if getattr(task, key) != plain
    ]
    if given:
        raise RunError(
            f"`{given[0]}` is for models that their own processor reads, but {recipe.backbone.title!r} is one of "
            "weft's own. Take `prompt`, `max_text_tokens` and `max_target_tokens`, or another backbone."
        )
    for name, data in tasks.items():
        if kind_of(next(iter(data.splits.values()))).record_type == Conversation.record_type:
            raise RunError(
                f"`tasks.{name}.data` must hold questions, not conversations, for a model of weft's own such as "
                f"{recipe.backbone.title!r}. Take a table of questions, or a backbone with a chat template."
            )

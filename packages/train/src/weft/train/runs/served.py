"""A run as a model that MLflow loads and serves: recipe, tokenizer and adapter, never the backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from weft.data import Conversation, MediaRef, PairBool, Record
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.mixed import answer_mixed
from weft.eval.evaluate.predict import predict
from weft.eval.evaluate.visual import Pixels
from weft.eval.serving.batching import Question
from weft.train.backbones.loading import load_adapted
from weft.train.errors import RunError
from weft.train.output.result import ADAPTER, check_finished
from weft.train.preflight.tasks import Role, load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.open_session import make_batches
from weft.train.runs.requests import RECORDS

Talk = Callable[[Sequence[Conversation]], list[str]]
Predictor = Callable[[str, Sequence[str], Sequence[Sequence[bytes]]], list[str]]


def load_predictor(
    folder: Path | str, types: Mapping[str, str], images: Mapping[str, int] = MappingProxyType({})
) -> Predictor:
    """Load what `weft.train.runs.tracked` kept of a run.

    Args:
        folder: Folder with `recipe.yaml` and `adapter/`, such as that of a run.
        types: Task to the type of its records, such as "image_qa".
        images: Task to the number of images that each of its records shows; by default one, one or two for statements;
            conversations show any number.

    Returns:
        A function of a task, the texts, and for each text its encoded images, to the answers. It raises a `RunError`
        where a row has another number of images than the task.

    Raises:
        RunError: The backbone cannot be reached, or has no vision tower.
    """
    run = Served(folder, types, images)

    def answer(task: str, questions: Sequence[str], shown: Sequence[Sequence[bytes]]) -> list[str]:
        pairs = zip(questions, shown, strict=True)
        return run.say(task, [run.record(task, row, text, given) for row, (text, given) in enumerate(pairs)])

    return answer


def load_talker(folder: Path | str, task: str) -> Talk:
    """Load a run to be talked to: conversations are answered by one of its tasks, whatever its records were.

    Args:
        folder: As for `load_predictor`.
        task: The task; its `system`, lengths and beams hold, not its `ask`.

    Returns:
        A function of conversations to the answers to them. It raises a `ReaderError` where the model reads one question
        alone, and a conversation is more.

    Raises:
        RunError: The backbone cannot be reached, or is one of weft's own, which hold no conversations.
    """
    run = Served(folder, {task: Conversation.record_type}, talks=True)
    return lambda conversations: run.say(
        task, [replace(record, id=str(place)) for place, record in enumerate(conversations)]
    )


class Served:
    """A run that answers what it is asked.

    Args:
        folder: Folder with `recipe.yaml` and `adapter/`.
        types: As for `load_predictor`.
        images: As for `load_predictor`.
        talks: Whether all tasks are talked to, without their `ask` and `prompt`.

    Raises:
        RunError: As `load_predictor` does; or tasks are talked to, and the backbone is one of weft's own.
    """

    def __init__(
        self,
        folder: Path | str,
        types: Mapping[str, str],
        images: Mapping[str, int] = MappingProxyType({}),
        *,
        talks: bool = False,
    ) -> None:
        folder = Path(folder)
        self.types = types
        self.recipe = load_recipe(folder / "recipe.yaml")
        backbone = load_adapted(self.recipe, folder=folder, adapter=folder / ADAPTER)
        if talks and backbone.reader.paired:
            raise RunError(
                f"`backbone` must be read by its own processor to be talked to, but {backbone.name!r} is one of weft's "
                "own. Ask it questions (with lmms-eval: --force_simple)."
            )
        if backbone.reader.paired and backbone.transform is None:
            raise RunError(
                f"`backbone` must read images to be served, but {backbone.name!r} has no image processor. "
                "Serve a run whose backbone holds a vision tower."
            )
        self.model: Any = backbone.model
        self.model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
        visual = None if backbone.transform is None else Pixels(backbone.transform)
        self.batches = make_batches(_unasked(self.recipe) if talks else self.recipe, backbone, visual)
        self._counts = {name: range(1, 3) for name, kind in types.items() if kind == PairBool.record_type}
        self._counts |= {name: range(count, count + 1) for name, count in images.items()}

    def record(self, task: str, row: int, text: str, given: Sequence[bytes]) -> Record:
        """What is asked in a row by a text and encoded images, as a record of the type that its task was trained on.

        Raises:
            RunError: If it has another number of images than the task.
        """
        present = [data for data in given if isinstance(data, bytes | bytearray) and data]
        if self.types[task] != Conversation.record_type:  # which says itself where its images are
            _check_images(task, row, present, given, self._counts.get(task, range(1, 2)))
        refs = [MediaRef.from_bytes(bytes(data), f"{row}-{k}") for k, data in enumerate(present)]
        return RECORDS[self.types[task]](str(row), text, tuple(refs))

    def say(self, task: str, records: Sequence[Record]) -> list[str]:
        """Answers of one task to records with ids of their own."""
        size = self.recipe.evaluation.batch_size
        said = predict(self.model, task, records, self.batches, batch_size=size)
        assert isinstance(said, dict), "what is asked is answered in words"
        return [said[record.id] for record in records]

    def answer(self, questions: Sequence[Question]) -> list[str]:
        """Answers to questions of any mixture of tasks, in as few passes as their rules allow.

        Raises:
            RunError: As `record` does.
        """
        asked = [
            (each.task, self.record(each.task, row, each.text, each.images))
            for row, each in enumerate(questions)
        ]
        return answer_mixed(self.model, asked, self.batches)


def load_served(folder: Path) -> Served:
    """A finished run, from its folder; the types of its tasks' records are those of its data.

    Args:
        folder: Folder of the run.

    Raises:
        RunError: If it is no finished run, or there is nothing that it can be asked.
        WeftDataError: If the annotations of its data are absent.
    """
    check_finished(folder, "RUN")
    recipe = load_recipe(folder / "recipe.yaml")
    types, images = {}, {}
    for name, task in recipe.tasks.items():
        role: Role = "test" if task.data.test is not None else "train"
        records = load_tasks(recipe.model_copy(update={"tasks": {name: task}}), (role,))[name][role]
        kind = kind_of(records).record_type
        if kind in RECORDS:
            types[name], images[name] = kind, len(records[0].media_refs())
    if not types or recipe.blank_images:
        raise RunError(
            f"`RUN` must have a task that can be asked (of {', '.join(sorted(RECORDS))}), but {folder} has none. Serve "
            "another run."
        )
    return Served(folder, types, images)


def _unasked(recipe: Recipe) -> Recipe:
    """A recipe whose tasks word nothing themselves, but for `system`."""
    plain = {"ask": None, "prompt": "", "prompt_at": "start"}
    tasks = {name: task.model_copy(update=plain) for name, task in recipe.tasks.items()}
    return recipe.model_copy(update={"tasks": tasks})


def _check_images(
    task: str, row: int, present: Sequence[bytes], given: Sequence[object], wanted: range
) -> None:
    """Refuse a row whose images are not those of its task: none may be missing, empty, or left out of the answer."""
    if len(present) in wanted and all(data in present for data in given[: len(present)]):
        return
    said = " or ".join(map(str, wanted))
    raise RunError(
        f"`images` of row {row} must be {said} encoded image{'' if said == '1' else 's'}, as task {task!r} was trained "
        f"on, but are {len(present)}. Fill `image`{' and `second_image`' if 2 in wanted else ' alone'}."
    )

"""A run, asked as it was trained: the side that an export is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from weft.data import Record
from weft.eval.evaluate.predict import asked
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.visual import Pixels
from weft.eval.readers import Writing
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.loading import load_adapted
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.output.result import ADAPTER
from weft.train.preflight.tasks import TaskData, load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.exporting.outputs import IDS, Asked, Recording
from weft.train.runs.open_session import make_batches, make_visual


class OfRun:
    """A run with its records.

    Args:
        folder: Folder of a finished run.
        count: Records of each task, drawn evenly from its validation split, or from its test split where it has none.

    Raises:
        RunError: If its model writes no answers, or it has no such records.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.recipe = load_recipe(folder / "recipe.yaml")
        self.backbone: LoadedBackbone = load_adapted(self.recipe, folder=folder, adapter=folder / ADAPTER)
        self.model: Any = self.backbone.model
        if "write" not in self.backbone.reader.abilities:
            raise RunError(
                f"`--verify` compares written answers, but {self.backbone.name!r} writes none. Leave it out."
            )
        data = load_tasks(self.recipe, ("validation", "test"))
        self.splits = {name: "validation" if "validation" in own else "test" for name, own in data.items()}
        self.records = {name: self._drawn(name, own, count) for name, own in data.items()}
        transform = self.backbone.transform
        self.visual = (
            make_visual(self.recipe, self.backbone, data, Progress())
            if transform is None
            else Pixels(transform)
        )
        self.batches = make_batches(self.recipe, self.backbone, self.visual)
        self.device = next(self.model.parameters()).device

    def _drawn(self, task: str, data: TaskData, count: int) -> list[Record]:
        role = self.splits[task]
        if role not in data:
            raise RunError(
                f"`--verify` needs records of task {task!r}, but its recipe names neither a validation nor a test "
                "split. Export without it."
            )
        records = data[role]
        take = min(count, len(records))
        return [records[place * len(records) // take] for place in range(take)]

    def read_by(self, tokenizer: Any, transform: Any) -> ReaderBatches:
        """What makes the inputs of weft's own models with another tokenizer, and image processor if there is one."""
        own = self.backbone.reader
        reader = own.with_processor(replace(own.processor, tokenizer=tokenizer))
        backbone = replace(self.backbone, reader=reader, transform=transform)
        return make_batches(self.recipe, backbone, self.visual if transform is None else Pixels(transform))

    def ask(self, task: str, record: Record, as_task: str | None = None) -> Asked:
        """Ask the run one record, by the likeliest token each time.

        Args:
            task: Task whose words are used.
            record: The record.
            as_task: Task whose units act; by default the same.
        """
        rules = self.batches.rules[task]
        with asked(self.model, as_task or task):
            batch = self.batches.asker.asking([self.batches.row(task, record)]).beside(self.model)
            recording = Recording(self.model)
            writing = Writing(rules.max_new_tokens, 1, rules.no_repeat_ngram_size)
            found = self.batches.reader.generate(recording, batch, writing)
            inputs = dict(batch.inputs)
            logits, tokens = recording.kept(found)
        tokenizer = self.backbone.reader.processor.tokenizer
        answer = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return Asked(inputs, tokenizer.decode(inputs[IDS][0]), logits, tokens, answer)

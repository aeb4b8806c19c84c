"""An export, asked in its own library's code: plain transformers, and PEFT for adapters; weft adapts nothing there."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

from weft.data import Record
from weft.eval.readers.image_processor import load_transform
from weft.eval.readers.rows import Row, decoded
from weft.eval.readers.template import chat_template
from weft.train.backbones.saved import load_saved
from weft.train.runs.exporting.manifest import ExportedTask, Manifest
from weft.train.runs.exporting.outputs import IDS, Asked, Origin, greedy, written


class OfTarget(ABC):
    """The folder of one task of an export.

    Args:
        output: The export.
        manifest: What it says of itself.
        task: The task.
        run: The run: its records, and the class and dtype of its model.
    """

    def __init__(self, output: Path, manifest: Manifest, task: str, run: Origin) -> None:
        self.output, self.manifest, self.task, self.run = output, manifest, task, run
        self.own: ExportedTask = manifest.tasks[task]
        self.folder = output / self.own.folder

    @property
    @abstractmethod
    def model(self) -> Any:
        """The model in the target's own class."""

    @abstractmethod
    def acting(self) -> dict[str, str]:
        """Path of each module that has an effect to what acts there, in the paths of the plain model."""

    def loaded(self, path: str, revision: str | None = None) -> Any:
        """A plain model, in the dtype of the run.

        Args:
            path: Folder or hub id.
            revision: Commit or tag on the hub.
        """
        model = load_saved(self._kind, path, revision, dtype=next(self.run.model.parameters()).dtype)
        return model.to(self.run.device).eval()

    @property
    def _kind(self) -> Any:
        base: Any = type(self.run.model)._weft_base
        return base

    @cached_property
    def reading(self) -> Any:
        """The processor from the folder; of weft's own models what makes inputs by its tokenizer and transform."""
        if not self._paired:
            return AutoProcessor.from_pretrained(self.folder)
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        had = self.run.backbone.transform is not None
        return self.run.read_by(tokenizer, load_transform(str(self.folder)) if had else None)

    @property
    def _paired(self) -> bool:
        paired: bool = self.run.backbone.reader.paired
        return paired

    @property
    def _tokenizer(self) -> Any:
        if self._paired:
            return self.reading.reader.processor.tokenizer
        return getattr(self.reading, "tokenizer", self.reading)

    def ask(self, record: Record) -> Asked:
        """Ask one record, by the likeliest token each time.

        Args:
            record: The record.
        """
        inputs, prompt = self._inputs(record)
        options: dict[str, Any] = greedy(self.run.batches.rules[self.task])
        if (self.folder / "generation_config.json").is_file():
            own = GenerationConfig.from_pretrained(self.folder)
            own.update(**options, output_logits=True, return_dict_in_generate=True)
            options = {"generation_config": own}
        with torch.inference_mode():
            logits, tokens = written(self.model, inputs, options)
        answer = self._tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return Asked(inputs, prompt, logits, tokens, answer)

    def _inputs(self, record: Record) -> tuple[dict[str, Tensor], str]:
        model = self.run.model
        if self._paired:
            made = self.reading.asker.asking([self.reading.row(self.task, record)]).inputs
        else:
            made = read(self.reading, self.run.row(self.task, record))
        dtype = next(value.dtype for value in model.parameters() if value.is_floating_point())
        moved = {
            name: value.to(self.run.device, dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor)
        }
        return moved, self._tokenizer.decode(moved[IDS][0])


def read(processor: Any, row: Row) -> Mapping[str, Any]:
    """What a processor makes of a row, by its chat template where it has one, as its users call it.

    Args:
        processor: The processor.
        row: The row.
    """
    pictures = decoded(row)
    template = chat_template(processor)
    if template is None:
        with warnings.catch_warnings():
            # One processor makes an array of a tensor, which torch and numpy 2 comment on.
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            made: Mapping[str, Any] = processor(images=pictures, text=row.text, return_tensors="pt")
        return {name: value for name, value in made.items() if name != "labels"}
    shown = iter(pictures)
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": next(shown)}
                for part in turn.parts
            ],
        }
        for turn in row.turns
    ]
    own = {} if getattr(processor, "chat_template", None) else {"chat_template": template}
    found: Mapping[str, Any] = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **own
    )
    return found

"""One record, asked: what a model read, the logits of what it wrote, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from weft.train.errors import RunError

IDS = "input_ids"


@dataclass(frozen=True)
class Asked:
    """What a model did with one record.

    Attributes:
        inputs: Tensors that it read, by name.
        prompt: The prompt as text; empty where there is none to show.
        logits: Of every token that it wrote, shape `(tokens, vocabulary)`.
        tokens: The tokens that it wrote.
        answer: They as text.
    """

    inputs: Mapping[str, Tensor]
    prompt: str
    logits: Tensor
    tokens: Tensor
    answer: str


class Origin(Protocol):
    """The run that an export is compared with, as far as the export needs it."""

    @property
    def model(self) -> Any:
        """The adapted model."""

    @property
    def backbone(self) -> Any:
        """The `LoadedBackbone` around it."""

    @property
    def recipe(self) -> Any:
        """Its recipe."""

    @property
    def batches(self) -> Any:
        """What makes its inputs."""

    @property
    def device(self) -> torch.device:
        """Where the model is."""

    def row(self, task: str, record: Any) -> Any:
        """Return a record as the run words it."""

    def read_by(self, tokenizer: Any, transform: Any) -> Any:
        """Return what makes inputs with another tokenizer and image processor."""


class Recording:
    """Stands in a model's place where answers are written, and keeps the logits.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.logits: tuple[Tensor, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **options: Any) -> Tensor:
        """As the model's own, for one row.

        Args:
            **options: Its arguments; a `generation_config` among them says that logits are returned.
        """
        kept = (
            {} if "generation_config" in options else {"output_logits": True, "return_dict_in_generate": True}
        )
        found = self._model.generate(**options, **kept)
        self.logits = found.logits
        tokens: Tensor = found.sequences
        return tokens


def written(model: Any, inputs: Mapping[str, Tensor], options: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits and tokens that a model writes after a prompt of one row.

    Args:
        model: The model.
        inputs: What it reads.
        options: Further arguments of `generate`.

    Returns:
        Logits, shape `(tokens, vocabulary)`, and tokens, shape `(tokens,)`.
    """
    recording = Recording(model)
    tokens = recording.generate(**inputs, **options)
    return kept(recording, tokens)


def kept(recording: Recording, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and tokens of the one row of a recording; prompt and start are cut off.

    Args:
        recording: The recording.
        tokens: What its `generate` returned, or what a reader made of that.

    Raises:
        RunError: If answers were not written by `generate`.
    """
    if not recording.logits:
        raise RunError(
            "`--verify` compares the logits of written answers, but this model's own answers come without them. Leave "
            "it out."
        )
    logits = torch.cat([value.float().cpu() for value in recording.logits])
    row = tokens[0].cpu()
    return logits, row[len(row) - len(logits) :]


def greedy(rules: Any) -> dict[str, Any]:
    """Arguments of `generate` for the likeliest token each time.

    Args:
        rules: The rules of a task.
    """
    found = {"max_new_tokens": rules.max_new_tokens, "num_beams": 1, "do_sample": False}
    if rules.no_repeat_ngram_size:
        found["no_repeat_ngram_size"] = rules.no_repeat_ngram_size
    return found


@contextmanager
def called(model: Any, paths: set[str]) -> Iterator[set[str]]:
    """Note which of some modules are called inside the `with` block.

    Args:
        model: The model.
        paths: Their paths.

    Yields:
        The paths of those that were called; it fills up.
    """
    found: set[str] = set()

    def note(path: str) -> Any:
        return lambda *given: found.add(path)

    handles = [
        module.register_forward_pre_hook(note(path))
        for path, module in model.named_modules()
        if path in paths
    ]
    try:
        with torch.inference_mode():
            yield found
    finally:
        for handle in handles:
            handle.remove()

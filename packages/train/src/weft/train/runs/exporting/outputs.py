"""One record, asked: what a model read, the logits of what it wrote, and the answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
        answer: The tokens as text.
    """

    inputs: Mapping[str, Tensor]
    prompt: str
    logits: Tensor
    tokens: Tensor
    answer: str


class Recording:
    """Stands in a model's place where answers are written, and keeps the logits."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.logits: tuple[Tensor, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def generate(self, **options: Any) -> Tensor:
        """As the model's own, for one row; a `generation_config` must say itself that logits are returned."""
        if "generation_config" not in options:
            options |= {"output_logits": True, "return_dict_in_generate": True}
        found = self._model.generate(**options)
        self.logits = found.logits
        tokens: Tensor = found.sequences
        return tokens

    def kept(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and tokens of the one row that was written; prompt and start are cut off.

        Args:
            tokens: What `generate` returned, or what a reader made of that.

        Raises:
            RunError: If answers were not written by `generate`.
        """
        if not self.logits:
            raise RunError(
                "`--verify` compares the logits of written answers, but this model's own answers come without them. "
                "Leave it out."
            )
        logits = torch.cat([value.float().cpu() for value in self.logits])
        row = tokens[0].cpu()
        return logits, row[len(row) - len(logits) :]


def greedy(rules: Any) -> dict[str, Any]:
    """Arguments of `generate` for the likeliest token each time, by the rules of a task."""
    found = {"max_new_tokens": rules.max_new_tokens, "num_beams": 1, "do_sample": False}
    if rules.no_repeat_ngram_size:
        found["no_repeat_ngram_size"] = rules.no_repeat_ngram_size
    return found


@contextmanager
def called(model: Any, paths: set[str]) -> Iterator[set[str]]:
    """Give the paths of those modules that are called inside the `with` block; the set fills up."""
    found: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda *given, path=path: found.add(path))
        for path, module in model.named_modules()
        if path in paths
    ]
    try:
        with torch.inference_mode():
            yield found
    finally:
        for handle in handles:
            handle.remove()

"""Batches: records of one or several tasks as the tensors of a sequence-to-sequence model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.data.records import Record, media_of
from weft.eval.evaluate.kinds import kind_of
from weft.eval.evaluate.visual import Visual

IGNORED = -100


@dataclass(frozen=True)
class TextRules:
    """How the texts of one task are written.

    Args:
        prompt: Put before the text, such as `"vqa: "`.
        max_text_tokens: Texts are cut there.
        max_target_tokens: Targets are cut there.
        max_new_tokens: Longest generated answer.
        num_beams: Beams of generation.
        no_repeat_ngram_size: Forbids repeated n-grams in generation; 0 allows them.
    """

    prompt: str = ""
    max_text_tokens: int = 64
    max_target_tokens: int = 64
    max_new_tokens: int = 20
    num_beams: int = 1
    no_repeat_ngram_size: int = 0


@dataclass
class Batches:
    """Makes model inputs.

    Args:
        tokenizer: Any Hugging Face tokenizer.
        visual: Images to inputs.
        rules: Task to its rules.
        seed: Seed of drawn targets.
    """

    tokenizer: Any
    visual: Visual
    rules: Mapping[str, TextRules]
    seed: int = 0

    def inputs(self, task: str, records: Sequence[Record]) -> dict[str, Tensor]:
        """What a model reads to answer records of one task.

        Returns:
            `input_ids`, `attention_mask` of shape `(batch, text)`, and the visual inputs.
        """
        return self._inputs([(task, record) for record in records])

    def training(self, rows: Sequence[tuple[str, Record]], epoch: int = 0) -> dict[str, Any]:
        """Inputs with labels, for rows of any mixture of tasks.

        Args:
            rows: Task and record of each row. All rows show the same number of images.
            epoch: Targets that are drawn differ between epochs and depend on nothing else.

        Returns:
            The inputs of `inputs`, `labels` (`-100` where nothing is scored), `weights` of shape `(batch,)`,
            and `tasks`, the task of each row.
        """
        batch: dict[str, Any] = self._inputs(rows)
        drawn = []
        for task, record in rows:
            rng = random.Random(f"{self.seed}/{task}/{record.id}/{epoch}")
            drawn.append(kind_of([record]).target(record, rng))
        labels = self.tokenizer(
            [target for target, _ in drawn],
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=max(self.rules[task].max_target_tokens for task, _ in rows),
        )
        batch["labels"] = labels.input_ids.masked_fill(labels.attention_mask == 0, IGNORED)
        batch["weights"] = torch.tensor([weight for _, weight in drawn])
        batch["tasks"] = [task for task, _ in rows]
        return batch

    def _inputs(self, rows: Sequence[tuple[str, Record]]) -> dict[str, Any]:
        texts = [self.rules[task].prompt + kind_of([record]).text(record) for task, record in rows]
        text = self.tokenizer(
            texts,
            return_tensors="pt",
            padding=True,
            truncation=True,
            max_length=max(self.rules[task].max_text_tokens for task, _ in rows),
        )
        visual = self.visual([media_of(record) for _, record in rows])
        return {"input_ids": text.input_ids, "attention_mask": text.attention_mask, **visual}

"""The likeliest of given answers by an encoder-decoder that encodes each row once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutput

from weft.eval.readers.answer_tokens import padded_ids
from weft.eval.readers.batch import IGNORED


class AnswerRanker:
    """One encoded batch, and the scores of answers to its rows.

    Args:
        model: A model with `forward` of the Hugging Face form.
        inputs: What its encoder reads.
        tokens: Answer to its tokens.
        start: The token that every answer begins after.
        padding: The padding token.
        batch_size: Answers of one pass of the decoder.
    """

    def __init__(
        self,
        model: Any,
        inputs: Mapping[str, Tensor],
        tokens: Mapping[str, list[int]],
        start: int,
        padding: int,
        batch_size: int,
    ) -> None:
        self._model, self._inputs, self._tokens = model, inputs, tokens
        self._padding, self._batch_size = padding, batch_size
        self._device = next(iter(inputs.values())).device
        # What all answers begin with is read with the encoder's pass.
        self._prefix = [start, *_shared(list(tokens.values()))]
        rows = len(next(iter(inputs.values())))
        read = torch.tensor([self._prefix], device=self._device).expand(rows, -1)
        output = model(**inputs, decoder_input_ids=read)
        self._next: Tensor = output.logits[:, -1]
        self._encoded: Tensor = output.encoder_last_hidden_state

    def best(self, candidates: Sequence[Sequence[str]], keep: int, per_token: bool) -> list[str]:
        """The likeliest answer to each row; of equal ones the first.

        Args:
            candidates: The answers of each row.
            keep: Answers of a row that are scored whole: those whose first token after what all have in common is
                likeliest.
            per_token: Divide the score by the number of tokens.
        """
        return [self._best(row, answers, keep, per_token) for row, answers in enumerate(candidates)]

    def _best(self, row: int, answers: Sequence[str], keep: int, per_token: bool) -> str:
        tokens = [self._tokens[answer] for answer in answers]
        kept = list(range(len(answers)))
        if len(kept) > keep:
            kept = self._likeliest_beginnings(row, tokens, keep)
        if len(kept) == 1:
            return answers[kept[0]]
        # Answers of the same tokens get one score: rows of one pass may differ in the last bit.
        distinct = list(dict.fromkeys(tuple(tokens[place]) for place in kept))
        scores: dict[tuple[int, ...], float] = {}
        for first in range(0, len(distinct), self._batch_size):
            part = distinct[first : first + self._batch_size]
            scores.update(zip(part, self._scores(row, [list(own) for own in part], per_token), strict=True))
        return answers[max(kept, key=lambda place: scores[tuple(tokens[place])])]

    def _likeliest_beginnings(self, row: int, tokens: list[list[int]], keep: int) -> list[int]:
        place = len(_shared(tokens))
        prefix = [self._prefix[0], *tokens[0][:place]]
        following = self._next[row]
        if prefix != self._prefix:
            following = self._decode(row, torch.tensor([prefix], device=self._device))[0, -1]
        first = following[torch.tensor([own[place] for own in tokens], device=self._device)]
        order = torch.sort(first, descending=True, stable=True).indices[:keep]
        return sorted(order.tolist())

    def _scores(self, row: int, tokens: list[list[int]], per_token: bool) -> list[float]:
        labels = padded_ids(tokens, IGNORED).to(self._device)
        given = labels.masked_fill(labels == IGNORED, self._padding)[:, :-1]
        start = torch.full((len(tokens), 1), self._prefix[0], device=self._device)
        logits = self._decode(row, torch.cat([start, given], 1)).float()
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        totals = losses.sum(1)
        if per_token:
            totals = totals / (labels != IGNORED).sum(1)
        return [-loss for loss in totals.tolist()]

    def _decode(self, row: int, decoder_input_ids: Tensor) -> Tensor:
        """Logits of some answers to one row, shape `(answers, length, vocabulary)`."""
        count = len(decoder_input_ids)
        inputs = {name: _repeated(value, row, count) for name, value in self._inputs.items()}
        encoded = BaseModelOutput(last_hidden_state=_repeated(self._encoded, row, count))
        return self._model(**inputs, encoder_outputs=encoded, decoder_input_ids=decoder_input_ids).logits


def _shared(tokens: Sequence[list[int]]) -> list[int]:
    """What answers begin with, and none of them ends with."""
    columns = zip(*(own[:-1] for own in tokens), strict=False)
    return [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]


def _repeated(value: Tensor, row: int, count: int) -> Tensor:
    return value[row : row + 1].expand(count, *value.shape[1:])

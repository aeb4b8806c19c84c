"""Answers chosen from given ones by their likelihood, instead of written freely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers.modeling_outputs import BaseModelOutput

from weft.data import Record
from weft.eval.errors import ScoreInputError
from weft.eval.evaluate.abilities import continues_prompt, lacking
from weft.eval.evaluate.generate import start_token
from weft.eval.evaluate.inputs import IGNORED, Batches
from weft.eval.evaluate.predict import asked
from weft.eval.evaluate.processes import each_batch
from weft.eval.evaluate.rank_blip import choose, encode_answers
from weft.eval.evaluate.read import ReaderBatches

Candidates = Sequence[str] | Mapping[str, Sequence[str]]
Choice = Callable[[Sequence[Record]], list[str]]


def rank_answers(
    model: Any,
    task: str,
    records: Sequence[Record],
    batches: Batches | ReaderBatches,
    candidates: Candidates,
    *,
    keep: int = 128,
    per_token: bool = False,
    batch_size: int = 128,
    device: str | torch.device = "cpu",
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Choose the likeliest of the given answers for every record.

    The score of an answer is the log-probability of its tokens, the end included. Where a record has more than
    `keep` candidates, those are scored whose first token after what all have in common is likeliest. Equal scores
    go to the earlier candidate. The encoder runs once a record.

    Args:
        model: One that the reader of `batches` scores answers with, which are all scored whole; or a
            sequence-to-sequence model with `forward` of the Hugging Face form, or a BLIP that answers, whose score
            is smoothed as in training; routed to `task` if it can be.
        task: Name of the task.
        records: The records.
        batches: Makes the inputs.
        candidates: Answers that all records choose from, or record id to its own.
        keep: Candidates of one record that are scored whole.
        per_token: Divide the score by the number of tokens, so that long answers are not at a disadvantage.
        batch_size: Records of one pass of the encoder, and answers of one pass of the decoder.
        device: Where the model lies.
        progress: Called with the number of records done so far.

    Returns:
        Record id to its answer.

    Raises:
        ScoreInputError: A record has no candidate, `keep` is below 1, the model continues its prompt, or a BLIP is
            asked for what it cannot do.

    Source: the rank mode of BLIP's question answering, which UniAdapter uses (128 kept, sums, no length norm).
    """
    if keep < 1:
        raise ScoreInputError(f"`keep` must be at least 1, but is {keep}. Leave it at 128, or raise it.")
    own = _own(candidates, records)
    if isinstance(batches, ReaderBatches):
        choice = _by_reader(model, task, batches, own, per_token, batch_size)
    else:
        choice = _by_model(model, task, batches, candidates, own, keep, per_token, batch_size, device)
    chunks = [records[first : first + batch_size] for first in range(0, len(records), batch_size)]
    with asked(model, task):
        chosen = each_batch(chunks, choice, progress)
    return {
        record.id: best
        for rows, part in zip(chunks, chosen, strict=True)
        for record, best in zip(rows, part, strict=True)
    }


def _own(candidates: Candidates, records: Sequence[Record]) -> Mapping[str, Sequence[str]]:
    """Record id to its candidates."""
    own = candidates if isinstance(candidates, Mapping) else {record.id: candidates for record in records}
    bare = [record.id for record in records if not own.get(record.id)]
    if bare:
        raise ScoreInputError(
            f"`candidates` must give every record at least one answer, but {len(bare)} have none, such as "
            f"{bare[0]!r}. Pass a list for all, or one per record id."
        )
    return own


def _by_reader(
    model: Any,
    task: str,
    batches: ReaderBatches,
    own: Mapping[str, Sequence[str]],
    per_token: bool,
    batch_size: int,
) -> Choice:
    """Scores every answer whole: where prompt and answer are one sequence, nothing is saved by its beginning."""

    def run(rows: Sequence[Record]) -> list[str]:
        given = [own[record.id] for record in rows]
        return batches.chosen(model, task, rows, given, per_token=per_token, batch_size=batch_size)

    return run


def _by_model(
    model: Any,
    task: str,
    batches: Batches,
    candidates: Candidates,
    own: Mapping[str, Sequence[str]],
    keep: int,
    per_token: bool,
    batch_size: int,
    device: str | torch.device,
) -> Choice:
    blip = lacking(model, "weigh") is None
    if continues_prompt(model):
        raise ScoreInputError(
            "`model` must read the question apart from the answer to choose from given answers, but "
            f"{type(model).__name__} continues its prompt. Take a sequence-to-sequence model or a BLIP that answers, "
            "or let it write."
        )
    if blip and (per_token or isinstance(candidates, Mapping)):
        raise ScoreInputError(
            "`candidates` must be one list for all records, and `per_token` false, for a BLIP that answers: it reads "
            "the answers of a whole batch at once. Rank one record at a time, or take a VL-BART or VL-T5."
        )
    longest = batches.rules[task].max_target_tokens
    tokens = encode_answers(batches.tokenizer, list(candidates), longest) if blip else None

    def run(rows: Sequence[Record]) -> list[str]:
        inputs = {name: value.to(device) for name, value in batches.inputs(task, rows).items()}
        if tokens is not None:
            return choose(model, inputs, list(candidates), tokens, keep=keep)
        ranker = _Ranker(model, inputs, batches, batch_size)
        return [ranker.best(place, own[record.id], keep, per_token) for place, record in enumerate(rows)]

    return run


class _Ranker:
    """One encoded batch, and the scores of answers to its rows."""

    def __init__(self, model: Any, inputs: dict[str, Tensor], batches: Batches, batch_size: int) -> None:
        if "pixel_values" in inputs:
            # The tower runs once, however many answers are scored.
            inputs = dict(inputs)
            inputs["visual_features"] = model.encode_images(inputs.pop("pixel_values"))
        self._model, self._inputs, self._batch_size = model, inputs, batch_size
        self._tokenizer = batches.tokenizer
        self._start = start_token(model)
        self._tokens: dict[str, list[int]] = {}
        self._device = inputs["input_ids"].device
        count = len(inputs["input_ids"])
        start = torch.full((count, 1), self._start, device=self._device)
        output = model(**inputs, decoder_input_ids=start)
        self._encoded: Tensor = output.encoder_last_hidden_state

    def best(self, row: int, answers: Sequence[str], keep: int, per_token: bool) -> str:
        """The likeliest of some answers to one row."""
        fresh = [answer for answer in dict.fromkeys(answers) if answer not in self._tokens]
        if fresh:
            self._tokens.update(zip(fresh, self._tokenizer(fresh).input_ids, strict=True))
        tokens = [self._tokens[answer] for answer in answers]
        kept = list(range(len(answers)))
        if len(kept) > keep:
            kept = self._likeliest_beginnings(row, tokens, keep)
        # Answers of the same tokens get one score: rows of one pass may differ in the last bit.
        distinct = list(dict.fromkeys(tuple(tokens[place]) for place in kept))
        scores: dict[tuple[int, ...], float] = {}
        for first in range(0, len(distinct), self._batch_size):
            part = distinct[first : first + self._batch_size]
            scores.update(zip(part, self._scores(row, [list(own) for own in part], per_token), strict=True))
        return answers[max(kept, key=lambda place: scores[tuple(tokens[place])])]

    def _likeliest_beginnings(self, row: int, tokens: list[list[int]], keep: int) -> list[int]:
        common = 0
        while all(len(own) > common + 1 and own[common] == tokens[0][common] for own in tokens):
            common += 1
        prefix = torch.tensor([[self._start, *tokens[0][:common]]], device=self._device)
        logits = self._decode(row, prefix)[0, -1]
        first = logits[torch.tensor([own[common] for own in tokens], device=self._device)]
        order = torch.sort(first, descending=True, stable=True).indices[:keep]
        return sorted(order.tolist())

    def _scores(self, row: int, tokens: list[list[int]], per_token: bool) -> list[float]:
        longest = max(map(len, tokens))
        labels = torch.tensor([own + [IGNORED] * (longest - len(own)) for own in tokens], device=self._device)
        given = labels.masked_fill(labels == IGNORED, self._tokenizer.pad_token_id)[:, :-1]
        start = torch.full((len(tokens), 1), self._start, device=self._device)
        logits = self._decode(row, torch.cat([start, given], 1)).float()
        losses = cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none")
        totals = losses.sum(1)
        if per_token:
            totals = totals / (labels != IGNORED).sum(1)
        return [-loss for loss in totals.tolist()]

    def _decode(self, row: int, decoder_input_ids: Tensor) -> Tensor:
        """Logits of some beginnings of answers to one row, shape `(answers, length, vocabulary)`."""
        count = len(decoder_input_ids)
        inputs = {name: _repeated(value, row, count) for name, value in self._inputs.items()}
        encoded = BaseModelOutput(last_hidden_state=_repeated(self._encoded, row, count))
        logits: Tensor = self._model(
            **inputs, encoder_outputs=encoded, decoder_input_ids=decoder_input_ids
        ).logits
        return logits


def _repeated(value: Tensor, row: int, count: int) -> Tensor:
    return value[row : row + 1].expand(count, *value.shape[1:])

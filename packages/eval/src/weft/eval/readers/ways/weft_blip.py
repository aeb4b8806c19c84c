"""weft's own BLIPs, as BLIP was trained: contrast and matching, answers of which there are several, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor

from weft.core.composites import BlipAnsweringConfig, BlipCaptioningConfig, BlipRetrievalConfig
from weft.core.units.frame_attention import frame_weights
from weft.eval.readers.batch import Batch, Losses, token_losses
from weft.eval.readers.blip_head import IDS, MASK, PIXELS, BlipHeadReader, Head, by_length
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.one_question import check_answers
from weft.eval.readers.paired import unpaired
from weft.eval.readers.rows import Row
from weft.eval.readers.writing import Writing

HEADS: dict[type, Head] = {
    BlipRetrievalConfig: "compare",
    BlipAnsweringConfig: "answer",
    BlipCaptioningConfig: "describe",
}


class WeftBlipReader(BlipHeadReader):
    """Reads one text beside its picture or the frames of its video, by the passes of BLIP's own fine-tuning.

    Source: BLIP (Li et al. 2022) and its code; the frames of videos as in UniAdapter (Lu et al., ICLR 2024).
    """

    name: ClassVar[str] = "weft_blip"

    @property
    def head(self) -> Head:
        """What the model was built for."""
        return HEADS[type(self.config)]

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) not in HEADS:
            return "it is no BLIP of weft's own"
        return unpaired(processor)

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        return type(config) in HEADS

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """`AutoModel`."""
        return transformers.AutoModel

    @property
    def weighs(self) -> bool:
        """See `Reader.weighs`."""
        return self.head == "answer"

    @property
    def keeps_momentum(self) -> bool:
        """See `Reader.keeps_momentum`."""
        return self.head == "compare"

    @property
    def _shown(self) -> tuple[int, int | None]:
        return 1, None

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return 0 if self.head == "compare" else len(self._answers([answer], [None])[0])

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        self._check(rows)
        inputs = self.processor.texts(rows) | self.processor.pictures(rows, taught=True)
        if self.head == "compare":
            return self._batch(rows, inputs)
        check_answers(rows)
        own = [row.answers or ((row.answer or "", row.weight),) for row in rows]
        limits = [row.answer_tokens for row, answers in zip(rows, own, strict=True) for _ in answers]
        said = self._answers([text for answers in own for text, _ in answers], limits)
        starts, positions = self._starts(inputs, len(said)), None
        ids, mask, labels = self._taught(starts, said)
        if self.head == "describe":
            # What all prompts have in common is not scored.
            positions = torch.arange(min(map(len, starts)) - 1, ids.shape[1] - 1)
        inputs |= {"decoder_input_ids": ids, "decoder_attention_mask": mask}
        weights = torch.tensor([weight for answers in own for _, weight in answers])
        several = any(row.answers for row in rows)
        counts = torch.tensor([len(answers) for answers in own]) if several else None
        return self._batch(rows, inputs, labels=labels, weights=weights, counts=counts, positions=positions)

    def _texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        return self.processor.texts(rows)

    def _pictures(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        return self.processor.pictures(rows)

    def row_losses(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.row_losses`; nothing is averaged within an answer.

        Of answers `loss_b = sum_j weight_bj · sum_t -log p(answer_bjt | question_b, picture_b)`; of captions
        `loss_b = B / N · weight_b · sum_t -log p(caption_bt | picture_b)`, with `N` tokens in the batch's `B` captions:
        their mean is the mean over tokens.

        Source: BLIP's code for VQA, where the weight of an answer is the share of annotators who gave it, and for
            captioning.
        """
        losses = self.losses(model, batch)
        weighted = batch.weights.to(losses.sums.dtype) * losses.sums
        if self.head == "describe":
            return weighted * (len(batch) / losses.counts.sum())
        return weighted.new_zeros(len(batch)).index_add(0, _owners(batch, weighted.device), weighted)

    def choose(
        self,
        model: Any,
        rows: Sequence[Row],
        candidates: Sequence[Sequence[str]],
        *,
        keep: int = 128,
        per_token: bool = False,
        batch_size: int = 32,
    ) -> list[str]:
        """See `Reader.choose`; one list for all rows is read by BLIP's own way, smoothed as in training."""
        answers, limits = list(candidates[0]), {row.answer_tokens for row in rows}
        alike = all(list(own) == answers for own in candidates) and len(limits) == 1
        if self.head != "answer" or per_token or not alike or not answers:
            return super().choose(
                model, rows, candidates, keep=keep, per_token=per_token, batch_size=batch_size
            )
        with torch.inference_mode():
            batch = self.asking(rows).beside(model)
            mask = batch.inputs[MASK]
            states = model.encode_question(batch.inputs[IDS], mask, batch.inputs[PIXELS])
            ids, id_mask = (
                value.to(mask.device) for value in self.processor.encoded(answers, [*limits] * len(answers))
            )
            places = likeliest(model, states, mask, ids, id_mask, candidates=keep)
        return [answers[place] for place in places.tolist()]

    def read_for(self, candidates: Sequence[Sequence[str]]) -> list[int]:
        """See `Reader.read_for`; questions are read once."""
        return list(range(len(candidates))) if self.head == "answer" else super().read_for(candidates)

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """See `Reader.generate`; the token that answers follow comes first where a question was asked."""
        if self.head == "compare":
            raise self._refusal("write")
        inputs, mask = batch.inputs, batch.inputs[MASK]
        if self.head == "answer" or bool(mask.all()):
            return model.generate(**inputs, **writing.options)
        parts = []
        for length, places in by_length(mask):
            prompts = inputs[IDS][:, :length].masked_fill(mask[:, :length] == 0, self._start)
            tokens = model.generate(input_ids=prompts, pixel_values=inputs[PIXELS], **writing.options)
            parts.append((places, tokens[places]))
        return self._in_rows(parts)

    def embed_texts(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_texts`."""
        self._check_compares("embed")
        return model.encode_text(**{name: batch.inputs[name] for name in (IDS, MASK)})

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_pictures`."""
        self._check_compares("embed")
        return model.encode_image(batch.inputs[PIXELS])

    def match(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.match`: the logit of "yes"."""
        self._check_compares("match")
        return model(**batch.inputs)[:, 1]

    def look(self, model: Any, batch: Batch) -> Any:
        """See `Reader.look`."""
        self._check_compares("match")
        return model.encode_video(batch.inputs[PIXELS])

    def belong(self, model: Any, seen: Any, batch: Batch, features: Tensor | None = None) -> Tensor:
        """See `Reader.belong`; frames are weighted by the unit `frame_attention`."""
        self._check_compares("match")
        tokens, frames = (value.expand(len(batch), -1, -1) for value in (seen.tokens, seen.frames))
        weights = None if features is None else frame_weights(features, frames)
        return model.match(batch.inputs[IDS], batch.inputs[MASK], tokens, weights)[:, 1]

    def _answers(self, texts: Sequence[str], limits: Sequence[int | None]) -> list[list[int]]:
        """Tokens of answers behind the token that they begin behind, their ends included."""
        ids, mask = self.processor.encoded(texts, limits)
        return [own[1 : int(kept)].tolist() for own, kept in zip(ids, mask.sum(1), strict=True)]

    def _scored(self, model: Any, batch: Batch, smoothing: float) -> Losses:
        if batch.labels is None or self.head == "compare":
            raise self._refusal("score")
        labels, places = batch.labels, batch.positions
        read, wanted = (slice(-1), slice(1, None)) if places is None else (places, places + 1)

        def compute(inner: Any) -> tuple[Tensor, Tensor]:
            found = token_losses(self._logits(inner, batch)[:, read], labels[:, wanted], smoothing)
            return found.sums, found.counts

        return Losses(*model(compute=compute))

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        inputs = batch.inputs
        if self.head == "answer":
            states = model.encode_question(inputs[IDS], inputs[MASK], inputs[PIXELS])
            owned = _owners(batch, states.device)
            states, mask = states[owned], inputs[MASK][owned]
        else:
            states = model.encode_frames(inputs[PIXELS])
            mask = states.new_ones(states.shape[:2], dtype=torch.long)
        return model.text_decoder(
            input_ids=inputs["decoder_input_ids"],
            attention_mask=inputs["decoder_attention_mask"],
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            is_decoder=True,
        ).logits


def likeliest(
    model: Any,
    states: Tensor,
    attention_mask: Tensor,
    answers: Tensor,
    answer_mask: Tensor,
    *,
    candidates: int = 128,
) -> Tensor:
    """The likeliest answer of each question, in two steps.

    The probability of an answer's first token chooses candidates; the loss of the whole answer, summed over its tokens
    and smoothed as in training, decides between them. With as many candidates as answers it is the exact best.

    Args:
        model: A `weft.core.composites.BlipAnswering`.
        states: `model.encode_question(...)`, shape `(questions, length, width)`.
        attention_mask: Of the questions, shape `(questions, length)`.
        answers: Tokens of every answer with its first and last special one, shape `(answers, tokens)`.
        answer_mask: Shape `(answers, tokens)`.
        candidates: Answers that are read whole.

    Returns:
        Index of the best answer of each question, shape `(questions,)`; of equal ones the first.

    Raises:
        ReaderError: If there is no answer, or `candidates` is below 1.

    Source: BLIP's code for VQA.
    """
    if candidates < 1 or len(answers) == 0:
        raise ReaderError(
            f"`candidates` and `answers` must hold at least one, but are {candidates} and {len(answers)}. BLIP reads "
            "128 of 3,128 answers."
        )
    count, questions = min(candidates, len(answers)), len(states)
    start = answers[:1, :1].expand(questions, 1)
    first = model.answer_logits(start, torch.ones_like(start), states, attention_mask)[:, 0]
    odds = first.float().log_softmax(dim=1)[:, answers[:, 1]]
    # A stable order: answers that begin with the same token are taken in the order of the list.
    chosen = odds.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values
    losses = model.answer_losses(
        answers[chosen].flatten(0, 1),
        answer_mask[chosen].flatten(0, 1),
        states.repeat_interleave(count, dim=0),
        attention_mask.repeat_interleave(count, dim=0),
    ).view(questions, count)
    return chosen.gather(1, losses.argmin(dim=1, keepdim=True)).squeeze(1)


def _owners(batch: Batch, device: torch.device) -> Tensor:
    """Row of each answer, shape `(answers,)`."""
    rows = torch.arange(len(batch), device=device)
    return rows if batch.counts is None else rows.repeat_interleave(batch.counts)


READER = WeftBlipReader

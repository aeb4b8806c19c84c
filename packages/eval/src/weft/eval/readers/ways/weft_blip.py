"""weft's own BLIPs, as BLIP was trained: contrast and matching, answers of which there are several, captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor

from weft.core.composites import BlipAnsweringConfig, BlipCaptioningConfig, BlipRetrievalConfig
from weft.core.units.frame_attention import frame_weights
from weft.eval.readers.abilities import Ability
from weft.eval.readers.answer_list import likeliest
from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of, padded_ids, token_losses
from weft.eval.readers.blip_head import IDS, MASK, PIXELS, BlipHeadReader, Head
from weft.eval.readers.one_question import check_answers, check_one_question, check_sides
from weft.eval.readers.owners import owners
from weft.eval.readers.paired import PairedProcessor
from weft.eval.readers.rows import Row
from weft.eval.readers.ways.dual_encoder import identities
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
        paired = isinstance(processor, PairedProcessor)
        return None if paired else "a tokenizer and pictures of its own are needed (a PairedProcessor)"

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

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        check_one_question([row])

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return 0 if self.head == "compare" else len(self._answers([answer], [None])[0])

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        check_one_question(rows)
        inputs = self.processor.texts(rows) | self.processor.pictures(rows, taught=True)
        if self.head == "compare":
            return self._batch(rows, inputs)
        check_answers(rows)
        own = [row.answers or ((row.answer or "", row.weight),) for row in rows]
        limits = [row.answer_tokens for row, answers in zip(rows, own, strict=True) for _ in answers]
        said = self._answers([text for answers in own for text, _ in answers], limits)
        starts, positions = [[self._start]] * len(said), None
        if self.head == "describe":
            # A caption continues where its prompt ends: in the place of the prompt's last special token.
            kept = inputs[MASK].sum(1).tolist()
            prompts = [ids[1 : length - 1].tolist() for ids, length in zip(inputs[IDS], kept, strict=True)]
            starts = [[self._start, *prompt] for prompt in prompts]
        read = [[*start, *answer] for start, answer in zip(starts, said, strict=True)]
        learned = [[*[IGNORED] * len(start), *answer] for start, answer in zip(starts, said, strict=True)]
        if self.head == "describe":
            # What all prompts have in common is not scored.
            positions = torch.arange(min(map(len, starts)) - 1, max(map(len, read)) - 1)
        inputs["decoder_input_ids"] = padded_ids(read, self.config.text_config.pad_token_id)
        inputs["decoder_attention_mask"] = padded_ids([[1] * len(ids) for ids in read], 0)
        weights = torch.tensor([weight for answers in own for _, weight in answers])
        several = any(row.answers for row in rows)
        counts = torch.tensor([len(answers) for answers in own]) if several else None
        labels = padded_ids(learned, IGNORED)
        return self._batch(rows, inputs, labels=labels, weights=weights, counts=counts, positions=positions)

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`; either side of a comparison may be absent, in all rows alike."""
        if self.head == "compare":
            texts, _ = check_sides(rows)
        else:
            texts = True
            check_one_question(rows)
        read = self.processor.texts(rows) if texts else {}
        return self._batch(rows, read | self.processor.pictures(rows))

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; of each answer, smoothed as the config says. A comparison has none of a row alone."""
        return self._scored(model, batch, self.config.text_config.label_smoothing)

    def likelihoods(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.likelihoods`; never smoothed."""
        return -self._scored(model, batch, 0.0).sums

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
        lengths = mask.sum(1)
        if self.head == "answer" or bool((lengths == mask.shape[1]).all()):
            return model.generate(**inputs, **writing.options)
        found: dict[int, Tensor] = {}
        # All rows stay in every pass, for they are routed to their tasks by their places.
        for length in lengths.unique().tolist():
            places = (lengths == length).nonzero().squeeze(1)
            prompts = inputs[IDS][:, :length].masked_fill(mask[:, :length] == 0, self._start)
            tokens = model.generate(input_ids=prompts, pixel_values=inputs[PIXELS], **writing.options)
            found |= dict(zip(places.tolist(), tokens[places], strict=True))
        rows = [found[place] for place in range(len(batch))]
        padding = self.config.text_config.pad_token_id
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=padding)

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
        logits: Tensor = model(**batch.inputs)
        return logits[:, 1]

    def look(self, model: Any, batch: Batch) -> Any:
        """See `Reader.look`."""
        self._check_compares("match")
        return model.encode_video(batch.inputs[PIXELS])

    def belong(self, model: Any, seen: Any, batch: Batch, features: Tensor | None = None) -> Tensor:
        """See `Reader.belong`; frames are weighted by the unit `frame_attention`."""
        self._check_compares("match")
        tokens, frames = (value.expand(len(batch), -1, -1) for value in (seen.tokens, seen.frames))
        weights = None if features is None else frame_weights(features, frames)
        logits: Tensor = model.match(batch.inputs[IDS], batch.inputs[MASK], tokens, weights)
        return logits[:, 1]

    def _check_compares(self, ability: Ability) -> None:
        if self.head != "compare":
            raise self._refusal(ability)

    @property
    def _start(self) -> int:
        return int(self.config.text_config.bos_token_id)

    def _answers(self, texts: Sequence[str], limits: Sequence[int | None]) -> list[list[int]]:
        """Tokens of answers behind the token that they begin behind, their ends included."""
        ids, mask = self.processor.encoded(texts, limits)
        return [own[1 : int(kept)].tolist() for own, kept in zip(ids, mask.sum(1), strict=True)]

    def _scored(self, model: Any, batch: Batch, smoothing: float) -> Losses:
        if batch.labels is None or self.head == "compare":
            raise self._refusal("score")
        labels, places = batch.labels, batch.positions

        def compute(inner: Any) -> tuple[Tensor, Tensor]:
            logits = self._logits(inner, batch)
            if places is None:
                found = token_losses(logits[:, :-1], labels[:, 1:], smoothing)
            else:
                found = token_losses(logits[:, places], labels[:, places + 1], smoothing)
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
        logits: Tensor = model.text_decoder(
            input_ids=inputs["decoder_input_ids"],
            attention_mask=inputs["decoder_attention_mask"],
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            is_decoder=True,
        ).logits
        return logits

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], **fields: Any) -> Batch:
        owned = owners([len(row.pictures) for row in rows], {})
        same = identities(rows) if self.head == "compare" else {}
        return batch_of(rows, inputs, objective=self.objective, owners=owned, identities=same, **fields)


def _owners(batch: Batch, device: torch.device) -> Tensor:
    """Row of each answer, shape `(answers,)`."""
    rows = torch.arange(len(batch), device=device)
    return rows if batch.counts is None else rows.repeat_interleave(batch.counts)


READER = WeftBlipReader

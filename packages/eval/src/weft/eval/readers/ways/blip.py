"""BLIP's three heads as transformers has them: comparing and matching, answers, captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor
from torch.nn import functional
from transformers import BlipConfig

from weft.eval.readers.batch import Batch, Losses, token_losses
from weft.eval.readers.blip_head import IDS, MASK, PIXELS, BlipHeadReader, Head, by_length
from weft.eval.readers.contrast import alike, contrast
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.one_question import check_answers
from weft.eval.readers.processor import pictured, unread
from weft.eval.readers.rows import Row
from weft.eval.readers.writing import Writing

HEADS: dict[str, Head] = {
    "BlipForImageTextRetrieval": "compare",
    "BlipForQuestionAnswering": "answer",
    "BlipForConditionalGeneration": "describe",
}


class BlipReader(BlipHeadReader):
    """Reads one text beside its picture, by the head that the model was saved with.

    An answer begins behind the token that generation begins behind, also where the processor's own tensors begin with
    another. The decoder looks at texts of one length at a time, without their padding.
    """

    name: ClassVar[str] = "blip"
    calls_whole: ClassVar[bool] = False  # its parts are called one by one
    recomputes: ClassVar[bool] = False  # it adds to its embeddings in place

    @property
    def head(self) -> Head:
        """What the model was built for."""
        return next(HEADS[name] for name in self.config.architectures if name in HEADS)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) is not BlipConfig:
            return "it is no BLIP of transformers"
        if not cls.builds(config):
            named = ", ".join(config.architectures or ()) or "no architecture"
            return f"its config names {named}, and none of {', '.join(HEADS)}"
        return unread(processor)

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        return type(config) is BlipConfig and not HEADS.keys().isdisjoint(config.architectures or ())

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """The class that the config names."""
        return getattr(transformers, next(name for name in config.architectures if name in HEADS))

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return 0 if self.head == "compare" else len(self._answer(answer))

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        if self.head == "compare":
            return self._batch(rows, self._texts(rows) | self._pictures(rows))
        check_answers(rows)
        inputs = self._texts(rows) | self._pictures(rows)
        lengths = inputs[MASK].sum(1).tolist()
        answers = [self._answer(row.answer or "") for row in rows]
        whole = [length + len(answer) for length, answer in zip(lengths, answers, strict=True)]
        fitting = self.limits.fitting(rows, whole, [len(answer) for answer in answers])
        shorter = self._without_others(rows, fitting)
        if shorter is not None:
            return shorter
        ids, mask, labels = self._taught(self._starts(inputs, len(rows)), answers)
        names = ("decoder_input_ids", "decoder_attention_mask") if self.head == "answer" else (IDS, MASK)
        return self._batch(rows, inputs | dict(zip(names, (ids, mask), strict=True)), labels=labels)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`; smoothed as the config says.

        A model that compares learns to find a text's picture and a picture's text among those of the batch, at the
        temperature that its config starts from, as transformers keeps none; and to tell a pair that belongs together
        from one with the most similar other picture, and one with the most similar other text.

        Source: Li et al. 2022, section 3.2. There, other pairs are drawn by their similarity, and a momentum encoder
            and a queue give more of them; weft's own model (`weft_blip_retrieval`) does both.
        """
        if self.head == "compare":
            return self._compared(model, batch)
        return super().losses(model, batch)

    def _compared(self, model: Any, batch: Batch) -> Losses:
        seen, texts = _seen(model, batch), self.embed_texts(model, batch)
        images = functional.normalize(model.vision_proj(seen[:, 0]), dim=-1)
        scale = math.exp(self.config.logit_scale_init_value)
        each = contrast(texts, images, scale, None, batch.identities)
        ids, mask = batch.inputs[IDS], batch.inputs[MASK]
        others = (texts @ images.T).detach().masked_fill(alike(batch.identities), float("-inf"))
        others.fill_diagonal_(float("-inf"))
        matched = functional.cross_entropy(
            _match(model, ids, mask, seen), torch.ones_like(ids[:, 0]), reduction="none"
        )
        count = torch.ones_like(matched)
        for similar, of_text in ((others, True), (others.T, False)):
            most, place = similar.max(1)
            given = (ids, mask, seen[place]) if of_text else (ids[place], mask[place], seen)
            wrong = functional.cross_entropy(
                _match(model, *given), torch.zeros_like(ids[:, 0]), reduction="none"
            )
            there = most.isfinite()  # a row that shows what all others show has no other
            matched = matched + wrong.where(there, torch.zeros_like(wrong))
            count = count + there
        return Losses(each + matched / count, torch.ones_like(each))

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """See `Reader.generate`; the token that answers follow comes first where a question was asked."""
        if self.head == "compare":
            raise self._refusal("write")
        ids, mask = batch.inputs[IDS], batch.inputs[MASK]
        states = self._states(model, batch)
        parts = []
        for length, places in by_length(mask):
            start = ids.new_full((len(ids), 1), self._start)
            seen = states[:, :length]
            if self.head == "describe":
                # Shorter prompts are written to in a pass of their own; here nothing may look like padding.
                prompts = ids[:, 1 : length - 1].masked_fill(mask[:, 1 : length - 1] == 0, self._start)
                start, seen = torch.cat([start, prompts], 1), states
            tokens = model.text_decoder.generate(
                input_ids=start,
                eos_token_id=self.config.text_config.sep_token_id,
                pad_token_id=self._pad,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones_like(seen[..., 0], dtype=torch.long),
                **writing.options,
            )
            first = start.shape[1] if self.head == "describe" else 0
            parts.append((places, tokens[places, first:]))
        return self._in_rows(parts)

    def embed_texts(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_texts`."""
        self._check_compares("embed")
        text = {name: batch.inputs[name] for name in (IDS, MASK)}
        return functional.normalize(
            model.text_proj(model.text_encoder(**text).last_hidden_state[:, 0]), dim=-1
        )

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_pictures`."""
        self._check_compares("embed")
        return functional.normalize(model.vision_proj(_seen(model, batch)[:, 0]), dim=-1)

    def match(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.match`: the logit of "yes"."""
        self._check_compares("match")
        return model(**batch.inputs).itm_score[:, 1]

    def look(self, model: Any, batch: Batch) -> Any:
        """See `Reader.look`."""
        self._check_compares("match")
        return _seen(model, batch)

    def belong(self, model: Any, seen: Any, batch: Batch, features: Tensor | None = None) -> Tensor:
        """See `Reader.belong`; it weights no frames."""
        self._check_compares("match")
        if features is not None:
            raise ReaderError(
                f"`features` must be None for {self.title} because it weights no frames. Set "
                "evaluation.frame_aware=false."
            )
        states = seen.expand(len(batch), -1, -1)
        return _match(model, batch.inputs[IDS], batch.inputs[MASK], states)[:, 1]

    def _scored(self, model: Any, batch: Batch, smoothing: float) -> Losses:
        if batch.labels is None:
            raise self._refusal("score")
        return token_losses(self._logits(model, batch)[:, :-1], batch.labels[:, 1:], smoothing)

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        inputs, states = batch.inputs, self._states(model, batch)
        if self.head == "describe":
            return _decoded(model, inputs[IDS], inputs[MASK], states)
        read = inputs["decoder_input_ids"], inputs["decoder_attention_mask"]
        # Releases of transformers forget the mask of what a decoder looks at: no question may have padding there.
        groups = by_length(inputs[MASK])
        parts = [_decoded(model, *read, states[:, :length])[places] for length, places in groups]
        order = torch.cat([places for _, places in groups])
        return torch.cat(parts)[order.argsort()]

    def _states(self, model: Any, batch: Batch) -> Tensor:
        """What the decoder looks at: the picture, or the question that has looked at it."""
        seen = _seen(model, batch)
        if self.head == "describe":
            return seen
        return _grounded(model, batch.inputs[IDS], batch.inputs[MASK], seen)

    def _answer(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self.config.text_config.sep_token_id]

    def _texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        texts, tokenizer = [row.text for row in rows], self.processor.tokenizer
        options = {"padding_side": "right", "return_tensors": "pt", "return_token_type_ids": False}
        return dict(tokenizer(texts, padding=True, **options))

    def _pictures(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        self._check(rows)
        return pictured(self.processor, rows)


def _match(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    """The logits of "no" and "yes" of texts that read a picture, shape `(rows, 2)`."""
    return model.itm_head(_grounded(model, ids, mask, states)[:, 0])


def _grounded(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    """States of texts that read a picture, shape `(rows, length, width)`."""
    return model.text_encoder(**_beside(ids, mask, states)).last_hidden_state


def _beside(ids: Tensor, mask: Tensor, states: Tensor) -> dict[str, Tensor]:
    """Inputs of texts that attend to all of a picture's states."""
    seen = torch.ones_like(states[..., 0], dtype=torch.long)
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "encoder_hidden_states": states,
        "encoder_attention_mask": seen,
    }


def _seen(model: Any, batch: Batch) -> Tensor:
    """States of the vision tower, shape `(rows, tokens, width)`."""
    return model.vision_model(pixel_values=batch.inputs[PIXELS]).last_hidden_state


def _decoded(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    return model.text_decoder(**_beside(ids, mask, states), is_decoder=True).logits


READER = BlipReader

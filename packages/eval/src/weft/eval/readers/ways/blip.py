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

from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of, padded_ids, token_losses
from weft.eval.readers.blip_head import IDS, MASK, PIXELS, BlipHeadReader, Head
from weft.eval.readers.contrast import alike, contrast
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import check_answers, check_one_question, check_sides, pictures_of
from weft.eval.readers.owners import owners
from weft.eval.readers.processor import pictured
from weft.eval.readers.rows import Row
from weft.eval.readers.ways.dual_encoder import identities
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

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        text = config.text_config
        self._start, self._end, self._pad = text.bos_token_id, text.sep_token_id, text.pad_token_id

    @property
    def head(self) -> Head:
        """What the model was built for."""
        return next(HEADS[name] for name in self.config.architectures if name in HEADS)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        if type(config) is not BlipConfig:
            return "it is no BLIP of transformers"
        if not set(config.architectures or ()) & set(HEADS):
            named = ", ".join(config.architectures or ()) or "no architecture"
            return f"its config names {named}, and none of {', '.join(HEADS)}"
        if getattr(processor, "image_processor", None) is None:
            return f"its processor ({type(processor).__name__}) does not read pictures and texts"
        return None

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        named = set(getattr(config, "architectures", None) or ()) & set(HEADS)
        return type(config) is BlipConfig and bool(named)

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """The class that the config names."""
        return getattr(transformers, next(name for name in config.architectures if name in HEADS))

    @property
    def calls_whole(self) -> bool:
        """See `Reader.calls_whole`; its parts are called one by one."""
        return False

    @property
    def recomputes(self) -> bool:
        """See `Reader.recomputes`; it adds to its embeddings in place."""
        return False

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        super().check(row)
        self._check([row])

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return 0 if self.head == "compare" else len(self._answer(answer))

    def _check(self, rows: Sequence[Row]) -> None:
        check_one_question(rows, least=1, most=1)

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        if self.head == "compare":
            return self._batch(rows, self._inputs(rows), None)
        check_answers(rows)
        return self._taught(rows)

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`; either side of a comparison may be absent, in all rows alike."""
        if self.head != "compare":
            return self._batch(rows, self._inputs(rows), None)
        texts, pictures = check_sides(rows)
        inputs = (self._texts(rows) if texts else {}) | (self._pictures(rows) if pictures else {})
        return self._batch(rows, inputs, None)

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
        return self._scored(model, batch, self.config.text_config.label_smoothing)

    def likelihoods(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.likelihoods`; never smoothed."""
        return -self._scored(model, batch, 0.0).sums

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
        found: dict[int, Tensor] = {}
        for length, places in _by_length(mask):
            start = ids.new_full((len(ids), 1), self._start)
            seen = states[:, :length]
            if self.head == "describe":
                # Shorter prompts are written to in a pass of their own; here nothing may look like padding.
                prompts = ids[:, 1 : length - 1].masked_fill(mask[:, 1 : length - 1] == 0, self._start)
                start, seen = torch.cat([start, prompts], 1), states
            tokens = model.text_decoder.generate(
                input_ids=start,
                eos_token_id=self._end,
                pad_token_id=self._pad,
                encoder_hidden_states=seen,
                encoder_attention_mask=torch.ones_like(seen[..., 0], dtype=torch.long),
                **writing.options,
            )
            kept = tokens[places, start.shape[1] :] if self.head == "describe" else tokens[places]
            found |= dict(zip(places.tolist(), kept, strict=True))
        rows = [found[place] for place in range(len(batch))]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self._pad)

    def embed_texts(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_texts`."""
        self._check_compares()
        text = {name: batch.inputs[name] for name in (IDS, MASK)}
        return functional.normalize(
            model.text_proj(model.text_encoder(**text).last_hidden_state[:, 0]), dim=-1
        )

    def embed_pictures(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.embed_pictures`."""
        self._check_compares()
        return functional.normalize(model.vision_proj(_seen(model, batch)[:, 0]), dim=-1)

    def match(self, model: Any, batch: Batch) -> Tensor:
        """See `Reader.match`: the logit of "yes"."""
        self._check_compares()
        logits: Tensor = model(**batch.inputs).itm_score
        return logits[:, 1]

    def look(self, model: Any, batch: Batch) -> Any:
        """See `Reader.look`."""
        self._check_compares()
        return _seen(model, batch)

    def belong(self, model: Any, seen: Any, batch: Batch, features: Tensor | None = None) -> Tensor:
        """See `Reader.belong`; it weights no frames."""
        self._check_compares()
        if features is not None:
            raise ReaderError(
                f"`features` must be None for {self.title} because it weights no frames. Set "
                "evaluation.frame_aware=false."
            )
        states = seen.expand(len(batch), -1, -1)
        return _match(model, batch.inputs[IDS], batch.inputs[MASK], states)[:, 1]

    def _check_compares(self) -> None:
        if self.head != "compare":
            raise self._refusal("embed")

    def _taught(self, rows: Sequence[Row]) -> Batch:
        inputs = self._inputs(rows)
        prompts = [
            ids[: int(kept)].tolist() for ids, kept in zip(inputs[IDS], inputs[MASK].sum(1), strict=True)
        ]
        answers = [self._answer(row.answer or "") for row in rows]
        fitting = self.limits.fitting(
            rows,
            [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True)],
            [len(answer) for answer in answers],
        )
        if len(fitting) < len(rows):
            left_out = tuple(row.name for place, row in enumerate(rows) if place not in fitting)
            return self.training([rows[place] for place in fitting]).without(left_out)
        if self.head == "answer":
            starts = [[self._start]] * len(rows)
        else:
            # A caption continues where its prompt ends: in the place of the prompt's last special token.
            starts = [[self._start, *prompt[1:-1]] for prompt in prompts]
        read = [[*start, *answer] for start, answer in zip(starts, answers, strict=True)]
        learned = [[*[IGNORED] * len(start), *answer] for start, answer in zip(starts, answers, strict=True)]
        names = ("decoder_input_ids", "decoder_attention_mask") if self.head == "answer" else (IDS, MASK)
        made = (padded_ids(read, self._pad), padded_ids([[1] * len(own) for own in read], 0))
        labels = padded_ids(learned, IGNORED)
        return self._batch(rows, inputs | dict(zip(names, made, strict=True)), labels)

    def _scored(self, model: Any, batch: Batch, smoothing: float) -> Losses:
        if batch.labels is None:
            raise self._refusal("score")

        return token_losses(self._logits(model, batch)[:, :-1], batch.labels[:, 1:], smoothing)

    def _logits(self, model: Any, batch: Batch) -> Tensor:
        inputs, states = batch.inputs, self._states(model, batch)
        if self.head == "describe":
            return _decoded(model, inputs[IDS], inputs[MASK], states)
        read = inputs["decoder_input_ids"], inputs["decoder_attention_mask"]
        # Releases of transformers forget the mask of what a decoder looks at: no question may have padding there. All
        # rows stay in every pass, for they are routed to their tasks by their places.
        groups = _by_length(inputs[MASK])
        parts = [_decoded(model, *read, states[:, :length])[places] for length, places in groups]
        order = torch.cat([places for _, places in groups])
        return torch.cat(parts)[order.argsort()]

    def _states(self, model: Any, batch: Batch) -> Tensor:
        """What the decoder looks at: the picture, or the question that has looked at it."""
        ids, mask = batch.inputs[IDS], batch.inputs[MASK]
        seen = _seen(model, batch)
        if self.head == "describe":
            return seen
        return _grounded(model, ids, mask, seen)

    def _answer(self, text: str) -> list[int]:
        ids: list[int] = self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [*ids, self._end]

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        self._check(rows)
        return self._texts(rows) | self._pictures(rows)

    def _texts(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        texts = [row.text for row in rows]
        return dict(
            self.processor.tokenizer(
                texts, padding=True, padding_side="right", return_tensors="pt", return_token_type_ids=False
            )
        )

    def _pictures(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        self._check(rows)
        return pictured(self.processor, [picture for own in pictures_of(rows) or [] for picture in own])

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], labels: Tensor | None) -> Batch:
        media = {PIXELS: inputs[PIXELS]} if PIXELS in inputs else {}
        owned = owners([len(row.pictures) for row in rows], media)
        same = identities(rows) if self.head == "compare" else {}
        return batch_of(rows, inputs, objective=self.objective, labels=labels, owners=owned, identities=same)


def _match(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    """The logits of "no" and "yes" of texts that read a picture, shape `(rows, 2)`."""
    logits: Tensor = model.itm_head(_grounded(model, ids, mask, states)[:, 0])
    return logits


def _grounded(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    """States of texts that read a picture, shape `(rows, length, width)`."""
    hidden: Tensor = model.text_encoder(**_beside(ids, mask, states)).last_hidden_state
    return hidden


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
    states: Tensor = model.vision_model(pixel_values=batch.inputs[PIXELS]).last_hidden_state
    return states


def _decoded(model: Any, ids: Tensor, mask: Tensor, states: Tensor) -> Tensor:
    logits: Tensor = model.text_decoder(**_beside(ids, mask, states), is_decoder=True).logits
    return logits


def _by_length(mask: Tensor) -> list[tuple[int, Tensor]]:
    """Each length of a text with the places of the rows that have it."""
    lengths = mask.sum(1)
    return [(length, (lengths == length).nonzero().squeeze(1)) for length in lengths.unique().tolist()]


READER = BlipReader

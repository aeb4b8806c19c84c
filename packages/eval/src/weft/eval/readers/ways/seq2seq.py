"""Encoder and decoder: pictures and prompt are encoded, the answer is decoded. Florence-2, VL-BART, VL-T5."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import (
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoModel,
    AutoModelForImageTextToText,
    BlipConfig,
)

from weft.core.composites import VisualSeq2SeqConfig
from weft.eval.readers.abilities import Ability
from weft.eval.readers.answer_ranker import AnswerRanker
from weft.eval.readers.answer_tokens import padded_ids, stop_tokens
from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of, stored, token_losses
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.one_question import OneQuestion, check_answers, pictures_of
from weft.eval.readers.owners import owners
from weft.eval.readers.paired import unpaired
from weft.eval.readers.processor import processed, unread
from weft.eval.readers.rows import Row
from weft.eval.readers.template import chat_template
from weft.eval.readers.writing import Writing

PIXELS = "pixel_values"


class Seq2SeqReader(OneQuestion):
    """Encodes prompts by the model's processor; an answer has the special tokens that its tokenizer writes."""

    name: ClassVar[str] = "seq2seq"
    objective = "generation"
    decides_early: ClassVar[bool] = True

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._language = language_config(config)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        own = isinstance(config, VisualSeq2SeqConfig)
        if not own and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return "AutoModelForImageTextToText does not know its type"
        if not language_config(config).is_encoder_decoder:
            return "its language model is no encoder and decoder"
        if (fault := unpaired(processor) if own else unread(processor)) is not None:
            return fault
        return None if chat_template(processor) is None else "its processor has a chat template"

    @classmethod
    def builds(cls, config: Any) -> bool:
        """See `Reader.builds`."""
        known = type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING and not isinstance(config, BlipConfig)
        return isinstance(config, VisualSeq2SeqConfig) or known

    @classmethod
    def model_class(cls, config: Any) -> Any:
        """`AutoModelForImageTextToText`, or `AutoModel` for weft's own."""
        return AutoModel if isinstance(config, VisualSeq2SeqConfig) else AutoModelForImageTextToText

    @property
    def abilities(self) -> frozenset[Ability]:
        """It writes, and scores given answers; weft's own reads stored features as well."""
        return frozenset({"write", "score", "features"} if self.paired else {"write", "score"})

    @property
    def _shown(self) -> tuple[int, int | None]:
        return (0, None) if self.paired else (1, 1)

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        check_answers(rows)
        labels, inputs = self._labels(rows), self._inputs(rows, taught=True)
        counts = (labels != IGNORED).sum(1)
        lengths = inputs["attention_mask"].sum(1) + counts
        fitting = self.limits.fitting(rows, lengths.tolist(), counts.tolist())
        shorter = self._without_others(rows, fitting)
        if shorter is not None:
            return shorter
        return self._batch(rows, {**inputs, "decoder_input_ids": self._shifted(labels)}, labels)

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`."""
        return self._batch(rows, self._inputs(rows))

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`."""
        assert batch.labels is not None, "made by `training`"
        return token_losses(model(**batch.inputs).logits, batch.labels)

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """See `Reader.generate`; the token that starts every answer comes first."""
        return model.generate(**batch.inputs, **writing.options)

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
        """See `Reader.choose`; the encoder runs once a row, and the answers that begin likeliest are scored whole."""
        tokens = {answer: self._answer(answer) for answer in dict.fromkeys(chain.from_iterable(candidates))}
        with torch.inference_mode():
            batch = self.asking(rows).beside(model)
            if "features" in self.abilities and PIXELS in batch.inputs:
                batch = self.with_features(model, batch)
            padding = self.processor.tokenizer.pad_token_id
            ranker = AnswerRanker(model, batch.inputs, tokens, self._start, padding, batch_size)
            return ranker.best(candidates, keep, per_token)

    def read_for(self, candidates: Sequence[Sequence[str]]) -> list[int]:
        """See `Reader.read_for`."""
        return list(range(len(candidates)))

    def with_features(self, model: Any, batch: Batch) -> Batch:
        """See `Reader.with_features`."""
        if "features" not in self.abilities:
            raise self._refusal("features")
        return stored(batch, model.encode_images(batch.inputs[PIXELS]))

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return len(self._answer(answer))

    def _inputs(self, rows: Sequence[Row], *, taught: bool = False) -> dict[str, Tensor]:
        self._check(rows)
        if self.paired:
            return self.processor.texts(rows) | self.processor.pictures(rows, taught=taught)
        made = processed(self.processor, pictures_of(rows), [row.text for row in rows])
        made.pop("labels", None)
        return made

    def _labels(self, rows: Sequence[Row]) -> Tensor:
        """The tokens of the answers, shape `(rows, tokens)`."""
        if self.paired:
            limits = [row.answer_tokens for row in rows]
            ids, mask = self.processor.encoded([row.answer or "" for row in rows], limits)
            return ids.masked_fill(mask == 0, IGNORED)
        return padded_ids([self._answer(row.answer or "") for row in rows], IGNORED)

    def _answer(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        ids: list[int] = tokenizer(text)["input_ids"]
        stops = tokenizer.convert_tokens_to_ids(self._stops)
        return ids if ids and ids[-1] in stops else [*ids, tokenizer.eos_token_id]

    @cached_property
    def _stops(self) -> list[str]:
        return stop_tokens(self.processor.tokenizer, self._language)

    @property
    def _start(self) -> int:
        start = self._language.decoder_start_token_id
        if start is None:
            raise ReaderError(
                "`decoder_start_token_id` must be in the config of an encoder and decoder, but is None. Set it to the "
                "token that every answer begins behind."
            )
        return int(start)

    def _shifted(self, labels: Tensor) -> Tensor:
        """What the decoder reads: the token that starts an answer, then the answer without its last."""
        read = torch.cat([labels.new_full((len(labels), 1), self._start), labels[:, :-1]], 1)
        return read.masked_fill(read == IGNORED, self.processor.tokenizer.pad_token_id)

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], labels: Tensor | None = None) -> Batch:
        # Where all rows show equally many pictures, their tensors have a dimension for the pictures of a row.
        media = {} if self.paired else {name: inputs[name] for name in inputs if name.startswith("pixel")}
        owned = owners([len(row.pictures) for row in rows], media)
        return batch_of(rows, inputs, labels=labels, owners=owned)


def language_config(config: Any) -> Any:
    """The config of the part that writes."""
    if isinstance(config, VisualSeq2SeqConfig):
        return config.language_config
    return config.get_text_config(decoder=True)


READER = Seq2SeqReader

"""Encoder and decoder: pictures and prompt are encoded, the answer is decoded. Florence-2, VL-BART, VL-T5."""

from __future__ import annotations

from collections.abc import Sequence
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
from weft.eval.readers.answer_tokens import stop_tokens
from weft.eval.readers.batch import IGNORED, Batch, Losses, batch_of, token_losses
from weft.eval.readers.errors import ReaderError
from weft.eval.readers.one_question import check_answers, check_one_question, pictures_of
from weft.eval.readers.owners import owners
from weft.eval.readers.paired import PairedProcessor, stored
from weft.eval.readers.processor import processed
from weft.eval.readers.reader import Ability, Limits, Reader, Writing
from weft.eval.readers.rows import Row
from weft.eval.readers.template import chat_template


class Seq2SeqReader(Reader):
    """Encodes prompts by the model's processor; an answer has the special tokens that its tokenizer writes."""

    name: ClassVar[str] = "seq2seq"

    def __init__(self, config: Any, processor: Any, limits: Limits | None = None) -> None:
        super().__init__(config, processor, limits)
        self._language = language_config(config)
        self._stops = stop_tokens(processor.tokenizer, self._language)
        self._own = isinstance(config, VisualSeq2SeqConfig)

    @classmethod
    def fault(cls, config: Any, processor: Any) -> str | None:
        """See `Reader.fault`."""
        own = isinstance(config, VisualSeq2SeqConfig)
        if not own and type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            return "AutoModelForImageTextToText does not know its type"
        if not language_config(config).is_encoder_decoder:
            return "its language model is no encoder and decoder"
        if own and not isinstance(processor, PairedProcessor):
            return "a tokenizer and pictures of its own are needed (a PairedProcessor)"
        if chat_template(processor) is not None:
            return "its processor has a chat template"
        return None

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
        return frozenset({"write", "score", "features"} if self._own else {"write", "score"})

    @property
    def objective(self) -> str:
        """Generation of the answer."""
        return "generation"

    def training(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.training`."""
        check_answers(rows)
        answers = [self._answer(row.answer or "") for row in rows]
        inputs = self._inputs(rows)
        lengths = [int(length) for length in inputs["attention_mask"].sum(1)]
        counts = [len(answer) for answer in answers]
        fitting = self.limits.fitting(rows, [a + b for a, b in zip(lengths, counts, strict=True)], counts)
        if len(fitting) < len(rows):
            left_out = tuple(row.name for place, row in enumerate(rows) if place not in fitting)
            return self.training([rows[place] for place in fitting]).without(left_out)
        labels = torch.full((len(rows), max(counts)), IGNORED)
        for place, answer in enumerate(answers):
            labels[place, : len(answer)] = torch.tensor(answer)
        return self._batch(rows, {**inputs, "decoder_input_ids": self._shifted(labels)}, labels)

    def asking(self, rows: Sequence[Row]) -> Batch:
        """See `Reader.asking`."""
        return self._batch(rows, self._inputs(rows), None)

    def losses(self, model: Any, batch: Batch) -> Losses:
        """See `Reader.losses`."""
        assert batch.labels is not None, "made by `training`"
        return token_losses(model(**batch.inputs).logits, batch.labels)

    def generate(self, model: Any, batch: Batch, writing: Writing) -> Tensor:
        """See `Reader.generate`; the token that starts every answer stands first."""
        tokens: Tensor = model.generate(**batch.inputs, **writing.options)
        return tokens

    def with_features(self, model: Any, batch: Batch) -> Batch:
        """See `Reader.with_features`."""
        if not self._own:
            raise self._refusal("features")
        return stored(batch, model.encode_images(batch.inputs["pixel_values"]))

    def check(self, row: Row) -> None:
        """See `Reader.check`."""
        super().check(row)
        self._check([row])

    def answer_length(self, answer: str) -> int:
        """See `Reader.answer_length`."""
        return len(self._answer(answer))

    def _check(self, rows: Sequence[Row]) -> None:
        paired = isinstance(self.processor, PairedProcessor)
        check_one_question(rows, least=0 if paired else 1, most=None if paired else 1)

    def _inputs(self, rows: Sequence[Row]) -> dict[str, Tensor]:
        self._check(rows)
        texts = [row.text for row in rows]
        if isinstance(self.processor, PairedProcessor):
            return self.processor(texts, [row.pictures for row in rows])
        made = processed(self.processor, pictures_of(rows), texts)
        made.pop("labels", None)
        return made

    def _answer(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        ids: list[int] = tokenizer(text)["input_ids"]
        stops = tokenizer.convert_tokens_to_ids(self._stops)
        return ids if ids and ids[-1] in stops else [*ids, tokenizer.eos_token_id]

    def _shifted(self, labels: Tensor) -> Tensor:
        """What the decoder reads: the token that starts an answer, then the answer without its last."""
        start = self._language.decoder_start_token_id
        if start is None:
            raise ReaderError(
                "`decoder_start_token_id` must be in the config of an encoder and decoder, but is None. Set it to the "
                "token that every answer begins behind."
            )
        pad = self.processor.tokenizer.pad_token_id
        return torch.cat([labels.new_full((len(labels), 1), start), labels[:, :-1]], 1).masked_fill(
            torch.cat([labels.new_zeros(len(labels), 1), labels[:, :-1]], 1) == IGNORED, pad
        )

    def _batch(self, rows: Sequence[Row], inputs: dict[str, Tensor], labels: Tensor | None) -> Batch:
        media = {name: value for name, value in inputs.items() if name.startswith(("pixel", "visual"))}
        owned = owners([len(row.pictures) for row in rows], media)
        return batch_of(rows, inputs, labels=labels, owners=owned)


def language_config(config: Any) -> Any:
    """The config of the part that writes."""
    if isinstance(config, VisualSeq2SeqConfig):
        return config.language_config
    return config.get_text_config(decoder=True)


READER = Seq2SeqReader

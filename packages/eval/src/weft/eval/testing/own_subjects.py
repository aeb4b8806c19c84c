"""weft's own models as subjects: VL-BART and VL-T5, a dual encoder, and BLIP as it was trained."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor

from weft.core.composites import (
    BlipAnswering,
    BlipAnsweringConfig,
    BlipCaptioning,
    BlipCaptioningConfig,
    BlipRetrieval,
    BlipRetrievalConfig,
    DualEncoder,
    DualEncoderConfig,
    VisualSeq2Seq,
    VisualSeq2SeqConfig,
)
from weft.core.testing.backbones import SIZES, T5_FIELDS, bart_config
from weft.core.testing.processed.stills import image_processor
from weft.core.testing.processed.words import VISION, tokenizer
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.visual import Visual
from weft.eval.readers import PairedProcessor, Row, Wording, reader_for
from weft.eval.testing.subject import Subject

Made = tuple[Any, PairedProcessor]
SIDE = {"height": 32, "width": 32}
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MED = {
    **SIZES,
    "encoder_hidden_size": 16,
    "max_position_embeddings": 64,
    **_ENDS,
    "sep_token_id": 2,
}


def shown(pictures: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """Pixels of as many pictures in every row, shape `(rows, pictures, 3, 32, 32)`."""
    made = image_processor("BlipImageProcessor", size=SIDE)(
        [picture for own in pictures for picture in own], return_tensors="pt"
    )
    return {"pixel_values": made["pixel_values"].unflatten(0, (len(pictures), -1))}


def _tower() -> Any:
    return transformers.CLIPVisionConfig(**VISION)


def vl_bart() -> Made:
    """BART that reads visual tokens."""
    words = tokenizer(template="<s> $A </s>", padding_side="right")
    own = {"vocab_size": len(words), "decoder_start_token_id": 2, "forced_eos_token_id": None}
    return _visual(words, bart_config(**own, **_ENDS))


def vl_t5() -> Made:
    """T5 that reads visual tokens."""
    words = tokenizer(template="$A </s>", padding_side="right")
    return _visual(words, transformers.T5Config(**{**T5_FIELDS, "vocab_size": len(words), "eos_token_id": 2}))


def _visual(words: Any, language: Any) -> Made:
    config = VisualSeq2SeqConfig(language, _tower(), feature_size=16, num_visual_tokens=4)
    return VisualSeq2Seq(config), PairedProcessor(words, shown)


def weft_dual_encoder() -> Made:
    """A text encoder and a vision tower in one space."""
    words = tokenizer(template="<s> $A </s>", padding_side="right")
    text = transformers.BertConfig(**SIZES, vocab_size=len(words), max_position_embeddings=64)
    return DualEncoder(DualEncoderConfig(text, _tower(), projection_size=8)), PairedProcessor(words, shown)


def _blip(model: Any, config: Any, **fields: Any) -> Made:
    words = tokenizer(
        ["[ENC]"], template="<s> $A </s>", padding_side="right", cls_token="<s>", sep_token="</s>"
    )
    made = config(
        projection_dim=8,
        image_text_hidden_size=8,
        text_config={**_MED, "vocab_size": len(words)},
        vision_config=VISION,
        **({"encode_token_id": words.convert_tokens_to_ids("[ENC]")} if fields.get("encodes", True) else {}),
    )
    return model(made), PairedProcessor(words, shown)


def weft_blip_retrieval() -> Made:
    """BLIP that compares and matches."""
    return _blip(BlipRetrieval, BlipRetrievalConfig)


def weft_blip_answering() -> Made:
    """BLIP that answers."""
    return _blip(BlipAnswering, BlipAnsweringConfig)


def weft_blip_captioning() -> Made:
    """BLIP that describes."""
    return _blip(BlipCaptioning, BlipCaptioningConfig, encodes=False)


def _written_loss(model: Any, processor: PairedProcessor, rows: Sequence[Row]) -> Tensor:
    """The language model's own loss, each row read alone."""

    def one(row: Row) -> tuple[Tensor, Tensor]:
        labels = processor.tokenizer([row.answer], return_tensors="pt")["input_ids"]
        return model(**_read(processor, [row]), labels=labels).loss * labels.numel(), labels

    return _mean([one(row) for row in rows])


def _answered_loss(model: Any, processor: PairedProcessor, rows: Sequence[Row]) -> Tensor:
    def one(row: Row) -> tuple[Tensor, Tensor]:
        asked = _read(processor, [row])
        states = model.encode_question(**asked)
        ids, mask = processor.encoded([str(row.answer)], [None])
        return model.answer_losses(ids, mask, states, asked["attention_mask"]).sum(), ids[:, 1:]

    return _mean([one(row) for row in rows])


def _described_loss(model: Any, processor: PairedProcessor, rows: Sequence[Row]) -> Tensor:
    def one(row: Row) -> tuple[Tensor, Tensor]:
        prompt = _read(processor, [row])
        ids, mask = processor.encoded([str(row.answer)], [None])
        sums, _ = model.caption_losses(
            prompt["input_ids"], prompt["attention_mask"], prompt["pixel_values"], ids, mask
        )
        return sums.sum(), ids[:, 1:]

    return _mean([one(row) for row in rows])


def _read(processor: PairedProcessor, rows: Sequence[Row]) -> dict[str, Tensor]:
    return processor.texts(rows) | processor.pictures(rows)


def _mean(found: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    return torch.stack([loss for loss, _ in found]).sum() / sum(labels.numel() for _, labels in found)


OWN: dict[str, tuple[Callable[[], Made], Callable[..., Tensor] | None]] = {
    "vl_bart": (vl_bart, _written_loss),
    "vl_t5": (vl_t5, _written_loss),
    "weft_dual_encoder": (weft_dual_encoder, None),
    "weft_blip_retrieval": (weft_blip_retrieval, None),
    "weft_blip_answering": (weft_blip_answering, _answered_loss),
    "weft_blip_captioning": (weft_blip_captioning, _described_loss),
}
"""Name to what builds the model and its processor, and to the loss that the model computes itself."""


@functools.cache
def own_subject(name: str) -> Subject:
    """One of weft's own models, tiny and random.

    Args:
        name: Key of `OWN`.
    """
    build, loss = OWN[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, processor = build()
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() and "norm" not in parameter_name.lower():
                torch.nn.init.normal_(parameter, std=0.2)

    def inputs(rows: Sequence[Row]) -> dict[str, Tensor]:
        return _read(processor, rows)

    return Subject(
        title=name,
        model=model.eval(),
        processor=processor,
        own_inputs=inputs,
        own_loss=None if loss is None else partial(loss, model, processor),
    )


def paired_batches(
    config: Any, tokenizer: Any, visual: Visual, rules: Mapping[str, TextRules], **fields: Any
) -> ReaderBatches:
    """What puts records to a model of weft's own.

    Args:
        config: The model's config.
        tokenizer: Its tokenizer.
        visual: Shows the pictures.
        rules: Task to its rules.
        **fields: Further fields of `ReaderBatches`.
    """
    reader = reader_for(config, PairedProcessor(tokenizer, visual, visual.drawn))
    return ReaderBatches(reader, rules, {task: Wording() for task in rules}, **fields)

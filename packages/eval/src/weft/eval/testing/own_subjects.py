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
Loss = Callable[[Any, PairedProcessor, Row], tuple[Tensor, Tensor]]
SIDE = {"height": 32, "width": 32}
_ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_MED = {**SIZES, **_ENDS, "encoder_hidden_size": 16, "max_position_embeddings": 64, "sep_token_id": 2}


def shown(pictures: Sequence[Sequence[Any]]) -> dict[str, Tensor]:
    """Pixels of as many pictures in every row, shape `(rows, pictures, 3, 32, 32)`."""
    made = image_processor("BlipImageProcessor", size=SIDE)(
        [picture for own in pictures for picture in own], return_tensors="pt"
    )
    return {"pixel_values": made["pixel_values"].unflatten(0, (len(pictures), -1))}


def _tower() -> Any:
    return transformers.CLIPVisionConfig(**VISION)


def _vl_bart() -> Made:
    words = tokenizer(template="<s> $A </s>", padding_side="right")
    own = {"vocab_size": len(words), "decoder_start_token_id": 2, "forced_eos_token_id": None}
    return _visual(words, bart_config(**own, **_ENDS))


def _vl_t5() -> Made:
    words = tokenizer(template="$A </s>", padding_side="right")
    return _visual(words, transformers.T5Config(**{**T5_FIELDS, "vocab_size": len(words), "eos_token_id": 2}))


def _visual(words: Any, language: Any) -> Made:
    config = VisualSeq2SeqConfig(language, _tower(), feature_size=16, num_visual_tokens=4)
    return VisualSeq2Seq(config), PairedProcessor(words, shown)


def _dual_encoder() -> Made:
    words = tokenizer(template="<s> $A </s>", padding_side="right")
    text = transformers.BertConfig(**SIZES, vocab_size=len(words), max_position_embeddings=64)
    return DualEncoder(DualEncoderConfig(text, _tower(), projection_size=8)), PairedProcessor(words, shown)


def _blip(model: Any, config: Any, encodes: bool = True) -> Made:
    words = tokenizer(
        ["[ENC]"], template="<s> $A </s>", padding_side="right", cls_token="<s>", sep_token="</s>"
    )
    made = config(
        projection_dim=8,
        image_text_hidden_size=8,
        text_config={**_MED, "vocab_size": len(words)},
        vision_config=VISION,
        **({"encode_token_id": words.convert_tokens_to_ids("[ENC]")} if encodes else {}),
    )
    return model(made), PairedProcessor(words, shown)


def _written(model: Any, processor: PairedProcessor, row: Row) -> tuple[Tensor, Tensor]:
    labels = processor.tokenizer([row.answer], return_tensors="pt")["input_ids"]
    return model(**_read(processor, [row]), labels=labels).loss * labels.numel(), labels


def _answered(model: Any, processor: PairedProcessor, row: Row) -> tuple[Tensor, Tensor]:
    asked = _read(processor, [row])
    states = model.encode_question(**asked)
    ids, mask = processor.encoded([str(row.answer)], [None])
    return model.answer_losses(ids, mask, states, asked["attention_mask"]).sum(), ids[:, 1:]


def _described(model: Any, processor: PairedProcessor, row: Row) -> tuple[Tensor, Tensor]:
    prompt = _read(processor, [row])
    ids, mask = processor.encoded([str(row.answer)], [None])
    read = [prompt[name] for name in ("input_ids", "attention_mask", "pixel_values")]
    return model.caption_losses(*read, ids, mask)[0].sum(), ids[:, 1:]


def _read(processor: PairedProcessor, rows: Sequence[Row]) -> dict[str, Tensor]:
    return processor.texts(rows) | processor.pictures(rows)


def _mean_loss(one: Loss, model: Any, processor: PairedProcessor, rows: Sequence[Row]) -> Tensor:
    """The mean over tokens of the model's own losses, each row read alone."""
    found = [one(model, processor, row) for row in rows]
    return torch.stack([loss for loss, _ in found]).sum() / sum(labels.numel() for _, labels in found)


OWN: dict[str, tuple[Callable[[], Made], Loss | None]] = {
    "vl_bart": (_vl_bart, _written),
    "vl_t5": (_vl_t5, _written),
    "weft_dual_encoder": (_dual_encoder, None),
    "weft_blip_retrieval": (partial(_blip, BlipRetrieval, BlipRetrievalConfig), None),
    "weft_blip_answering": (partial(_blip, BlipAnswering, BlipAnsweringConfig), _answered),
    "weft_blip_captioning": (partial(_blip, BlipCaptioning, BlipCaptioningConfig, encodes=False), _described),
}
"""Name to what builds the model and its processor, and to what gives the model's own loss of a row and its labels."""


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

    return Subject(
        title=name,
        model=model.eval(),
        processor=processor,
        own_inputs=partial(_read, processor),
        own_loss=None if loss is None else partial(_mean_loss, loss, model, processor),
    )


def paired_batches(
    config: Any, tokenizer: Any, visual: Visual, rules: Mapping[str, TextRules], **fields: Any
) -> ReaderBatches:
    """What puts the records of tasks to a model of weft's own, with further fields of `ReaderBatches`."""
    reader = reader_for(config, PairedProcessor(tokenizer, visual, visual.drawn))
    return ReaderBatches(reader, rules, {task: Wording() for task in rules}, **fields)

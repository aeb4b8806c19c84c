"""Tiny random backbones, one of each family, built from real configuration classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor

BATCH = 4

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_VISION: dict[str, Any] = {**SIZES, "image_size": 16, "patch_size": 8}

Batch = dict[str, Any]
Builder = Callable[[], tuple[Any, Batch]]

BACKBONES: dict[str, Builder] = {}


def tiny_backbone(name: str, seed: int = 0) -> tuple[Any, Batch]:
    """A tiny model in evaluation mode, a key of `BACKBONES`, and a batch of `BATCH` rows for it, of a seed."""
    torch.manual_seed(seed)
    model, batch = BACKBONES[name]()
    return model.eval(), batch


def model_of(kind: str, head: str = "ForConditionalGeneration", **fields: Any) -> Any:
    """A model of transformers, from a configuration with these fields."""
    return getattr(transformers, f"{kind}{head}")(getattr(transformers, f"{kind}Config")(**fields))


def _register(builder: Builder) -> Builder:
    BACKBONES[builder.__name__.lstrip("_")] = builder
    return builder


def token_ids(*shape: int) -> Tensor:
    """Ids of ordinary tokens, drawn from torch's generator."""
    return torch.randint(5, 90, shape)


def _pixels(rows: int = BATCH) -> Tensor:
    return torch.randn(rows, 3, 16, 16)


def seq2seq_batch() -> Batch:
    """Two rows, one of them shorter, with labels."""
    mask = torch.ones(BATCH, 7, dtype=torch.long)
    mask[1, 5:] = 0
    return {"input_ids": token_ids(BATCH, 7), "attention_mask": mask, "labels": token_ids(BATCH, 5)}


BART_FIELDS: dict[str, Any] = {
    "vocab_size": 100,
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "dropout": 0.0,
}
T5_FIELDS: dict[str, Any] = {
    "vocab_size": 100,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 2,
    "num_heads": 2,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.0,
}


def bart_config(**changes: Any) -> Any:
    """A tiny BART configuration without dropout, but for the fields that differ."""
    return transformers.BartConfig(**{**BART_FIELDS, **changes})


@_register
def _bart() -> tuple[Any, Batch]:
    return transformers.BartForConditionalGeneration(bart_config()), seq2seq_batch()


@_register
def _t5() -> tuple[Any, Batch]:
    return model_of("T5", **T5_FIELDS), seq2seq_batch()


@_register
def _clip() -> tuple[Any, Batch]:
    special = {"eos_token_id": 99, "bos_token_id": 98, "pad_token_id": 99}
    words = {**SIZES, "vocab_size": 100, "max_position_embeddings": 16, **special}
    text = token_ids(BATCH, 7)
    text[:, -1] = 99
    batch = {"input_ids": text, "pixel_values": _pixels(), "return_loss": True}
    return model_of("CLIP", "Model", projection_dim=8, text_config=words, vision_config=_VISION), batch


@_register
def _visual_seq2seq() -> tuple[Any, Batch]:
    from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig

    config = VisualSeq2SeqConfig(bart_config(), feature_size=12, num_visual_tokens=4)
    batch = {**seq2seq_batch(), "visual_features": torch.randn(BATCH, 1, 9, 12)}
    return VisualSeq2Seq(config), batch

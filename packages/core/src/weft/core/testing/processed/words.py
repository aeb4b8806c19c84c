"""Tokenizers that are trained on a few sentences, and the sizes of tiny models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from weft.core.testing.backbones import SIZES

SENTENCES = (
    "what colour is the circle? what shape is that? how many are there?",
    "describe the picture. a red square beside a small blue circle",
    "is this statement true? yes or no. one two three four five",
    "a green triangle, a yellow star, a large purple hexagon",
    "Question: what is it? Answer: answer the question with one word",
    "user assistant system User Assistant USER ASSISTANT",
)

Pair = tuple[Any, Any]

SQUARE = {"height": 32, "width": 32}
VISION: dict[str, Any] = {**SIZES, "image_size": 32, "patch_size": 8}
SIGLIP: dict[str, Any] = {**VISION, "model_type": "siglip_vision_model", "vision_use_head": False}
PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
ENDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SPECIAL = {"pad_token": PAD, "bos_token": BEGIN, "eos_token": END, "unk_token": UNKNOWN}


def tokenizer(
    special: Sequence[str] = (),
    *,
    size: int = 360,
    template: str | None = None,
    **fields: Any,
) -> Any:
    """A byte-level tokenizer.

    Args:
        special: Special tokens beside padding, beginning, end and unknown, which are 0, 1, 2 and 3.
        size: Largest vocabulary.
        template: What a text is put in, such as `"<s> $A </s>"`.
        **fields: Of the tokenizer of transformers.
    """
    made = Tokenizer(models.BPE(unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(dict.fromkeys([PAD, BEGIN, END, UNKNOWN, *special])),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(SENTENCES * 8, trainer)
    if template is not None:
        made.post_processor = processors.TemplateProcessing(
            single=template, pair=f"{template} $B", special_tokens=[(BEGIN, 1), (END, 2)]
        )
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **{**_SPECIAL, **fields})


def word_tokenizer(words: Sequence[str], **fields: Any) -> Any:
    """A tokenizer that knows whole words, between a beginning and an end.

    Padding, beginning, end and unknown are among the words.
    """
    made = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token=UNKNOWN))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, words.index(token)) for token in (BEGIN, END)]
    made.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A {END}", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **{**_SPECIAL, **fields})


def decoder_sizes(tokenizer: Any, **fields: Any) -> dict[str, Any]:
    """Settings of a decoder that writes with a tokenizer, but for the fields that differ."""
    return {
        **SIZES,
        "num_key_value_heads": 1,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 512,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        **fields,
    }

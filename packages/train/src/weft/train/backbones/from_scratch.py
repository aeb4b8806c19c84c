"""Your own backbones: new weights for an architecture, a tokenizer from texts, and a folder of both."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

from weft.core import composites
from weft.data import Record
from weft.data.processes.atomic import whole_folder
from weft.eval.evaluate.kinds import kind_of
from weft.eval.readers.image_processor import ProcessorTransform
from weft.train.errors import RunError, near

_SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}


def config_from(values: Mapping[str, Any]) -> PreTrainedConfig:
    """The config that a recipe's `backbone.config` describes: its `model_type`, and what that type's config takes.

    Raises:
        RunError: If the type is unknown, or the config refuses the values.
    """
    values = dict(values)
    model_type = values.pop("model_type", None)
    if model_type not in CONFIG_MAPPING:
        ours = [
            getattr(composites, name).model_type for name in composites.__all__ if name.endswith("Config")
        ]
        raise RunError(
            f"`backbone.config.model_type` must be one that transformers or weft knows, but is {model_type!r}. "
            f"{near(model_type, ours)}"
        )
    try:
        return CONFIG_MAPPING[model_type](**values)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"`backbone.config` must be a config of type {model_type!r}, but is refused: {error}"
        ) from None


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most so many tokens, in which no text is unknown.

    256 bytes and four special tokens are always among them.
    """
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    special = list(_SPECIAL.values())
    bpe.train_from_iterator(sorted(texts), vocabulary_size, show_progress=False, special_tokens=special)
    bpe.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, bpe.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, **_SPECIAL)


def texts_of(prompt: str, records: Sequence[Record]) -> Iterator[str]:
    """Everything that a model reads and writes for the records of one task, prompts included."""
    kind = kind_of(records)
    for record in records:
        yield prompt + kind.text(record)
        if kind.target is not None:
            yield kind.target(record, random.Random(record.id))[0]


def check_vocabulary(model: PreTrainedModel, tokens: int, *, own_tokens: bool) -> None:
    """Refuse a vocabulary for which the model has too few embeddings.

    The order of visual tokens takes some, unless the tokenizer has `own_tokens` for it.

    Raises:
        RunError: If there are more tokens than rows.
    """
    rows = model.get_input_embeddings().num_embeddings
    reserved = 0 if own_tokens else getattr(model.config, "num_visual_tokens", 0)
    if tokens + reserved > rows:
        raise RunError(
            f"`vocab_size` in `backbone.config` must be at least {tokens + reserved} ({tokens} tokens and "
            f"{reserved} rows for the order of visual tokens), but is {rows}. Raise it, or lower "
            "`tokenizer.vocabulary_size`."
        )


def save_backbone(
    model: PreTrainedModel, tokenizer: Any, transform: ProcessorTransform | None, folder: Path
) -> None:
    """Write a folder that `backbone.name` can name: weights, config, tokenizer, `preprocessor_config.json`.

    Args:
        model: A plain model, without units.
        tokenizer: Its tokenizer, or a processor that holds one.
        transform: Its image processor, or None.
        folder: The folder; it appears whole, and replaces one of its name.
    """
    with whole_folder(folder, replace=True) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if transform is not None:
            transform.processor.save_pretrained(partial)

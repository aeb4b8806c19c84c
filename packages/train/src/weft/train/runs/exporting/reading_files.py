"""What reads and asks a model, put into the folder of an export: processor, chat template, generation settings."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from transformers import GenerationConfig

from weft.eval.readers.one_sequence import OneSequence
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.recipe.sections import TaskSection

# Options of sampling, which greedy search refuses to keep.
_OF_SAMPLING = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
    "top_h",
)
_OPTIONS = ("max_new_tokens", "num_beams", "no_repeat_ngram_size", "early_stopping")


def save_reading(backbone: LoadedBackbone, folder: Path, writing: Mapping[str, Any]) -> None:
    """Write processor or tokenizer, chat template and generation settings, all as the run uses them.

    Args:
        backbone: The backbone of the run.
        folder: Folder of the export that a model or an adapter is in.
        writing: Arguments of `generate` that hold for everything the folder answers.
    """
    backbone.words.save_pretrained(folder)
    if backbone.transform is not None:
        backbone.transform.processor.save_pretrained(folder)
    if getattr(backbone.model, "generation_config", None) is not None:
        generation_config(backbone, writing).save_pretrained(folder)


def generation_config(backbone: LoadedBackbone, writing: Mapping[str, Any]) -> GenerationConfig:
    """How the run writes answers: the model's own settings, the tokens that end an answer, and no sampling."""
    config: GenerationConfig = deepcopy(backbone.model.generation_config)
    config.do_sample = False
    for name in _OF_SAMPLING:
        if hasattr(config, name):
            setattr(config, name, None)
    reader = backbone.reader
    if isinstance(reader, OneSequence):
        config.eos_token_id = reader.stop_ids
        config.pad_token_id = reader.processor.tokenizer.pad_token_id
    for name, value in writing.items():
        setattr(config, name, value)
    return config


def writing_of(task: TaskSection) -> dict[str, Any]:
    """The arguments of `generate` by which a task is asked."""
    return {name: getattr(task, name) for name in _OPTIONS}


def words_of(task: TaskSection) -> dict[str, str]:
    """How a task words its records, as its recipe says it."""
    asked = {"prompt": task.prompt, "prompt_at": task.prompt_at} if task.ask is None else {"ask": task.ask}
    return {**asked, "system": task.system}


def common(options: list[dict[str, Any]]) -> dict[str, Any]:
    """What all of several settings say alike.

    >>> common([{"num_beams": 1, "max_new_tokens": 5}, {"num_beams": 1, "max_new_tokens": 9}])
    {'num_beams': 1}
    """
    first, *others = options
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}

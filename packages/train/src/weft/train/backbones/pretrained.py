"""Saved vision-language models, of whatever class: loaded as their config says, with their own processor."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.utils import is_flash_attn_2_available

from weft.core.composites import ImageClassifier, ImageClassifierConfig
from weft.core.composites.image_classifier import tower_options
from weft.eval.readers import Reader, ReaderError, is_paired, load_processor, model_class_for, reader_for
from weft.eval.readers.video_frames import FramesRule
from weft.train.backbones.saved import (
    as_saved,
    fault_of_loading,
    foreign_values,
    load_saved,
    load_whole,
    saved_path,
)
from weft.train.errors import RunError, near
from weft.train.recipe.sections import BackboneSection

_READERS: dict[str, Reader] = {}  # what a command asks for several times is loaded once
_FRAMES = ("frames", "fps")  # of videos, which weft decodes itself
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".h5", ".msgpack")
_ATTENTION = {"eager": "eager", "sdpa": "sdpa", "flash": "flash_attention_2"}
_PIXELS = {"shortest_edge": "min_pixels", "longest_edge": "max_pixels"}


def saved_config(section: BackboneSection) -> PreTrainedConfig:
    """The config of the saved model that a recipe names.

    Raises:
        RunError: If it cannot be read, or no reader knows its type.
    """
    path = saved_path(section.name or "", "backbone.name")
    with as_saved("backbone.name", section.title, "'miniature', a folder", done="read"):
        config = load_saved(AutoConfig, path, section.revision)
    if section.heads is not None or is_image_encoder(config):
        return _with_heads(section, config)
    if is_paired(config):
        _check_own(section)
        return config
    try:
        model_class_for(config, section.reader)
    except ReaderError as error:
        raise RunError(
            f"{error} This is {section.name!r}; a BART or T5 goes under `backbone.language`."
        ) from None
    return config


def is_image_encoder(config: PreTrainedConfig) -> bool:
    """Whether models of a config read pictures alone."""
    main = getattr(MODEL_MAPPING.get(type(config), None), "main_input_name", None)
    return main == "pixel_values" and not hasattr(config, "text_config")


def _with_heads(section: BackboneSection, config: PreTrainedConfig) -> PreTrainedConfig:
    """The config of an encoder of images with the heads of the recipe."""
    if not is_image_encoder(config):
        raise RunError(
            f"`backbone.heads` is for encoders of images alone, but {section.name!r} is a {config.model_type}. Leave "
            "it out: a model that reads texts tells classes apart by their names."
        )
    if isinstance(config, ImageClassifierConfig):
        if section.heads is not None and dict(section.heads) != config.classes:
            raise RunError(
                f"`backbone.heads` must be left out for a model that has heads, or be those that it has "
                f"({config.classes}), but is {dict(section.heads)}. Leave it out."
            )
        return config
    if section.heads is None:
        raise RunError(
            f"`backbone.heads` must give the number of classes of each task for an encoder of images alone, but "
            f"{section.name!r} is a {config.model_type}, which has no text side, and no head is asked for. Set for "
            "instance backbone.heads.TASK=10, and `train_full: [heads]` in the method."
        )
    return ImageClassifierConfig(config, section.heads)


def own_reader(section: BackboneSection) -> Reader:
    """The reader of a saved model by the processor that it comes with, as the recipe sets it.

    Raises:
        RunError: If a library for its quantisation or attention is absent, or the processor has no such setting.
        ReaderError: If it has no processor, or none that a reader reads.
    """
    _check_libraries(section)
    path = saved_path(section.name or "", "backbone.name")
    key = json.dumps([path, section.revision, section.processor, section.reader, section.heads, _files(path)])
    if key not in _READERS:
        config, processor = saved_config(section), _processor(section, path)
        with as_saved("backbone.name", section.title):
            made = reader_for(config, processor, section.reader)
        frames = {name: section.processor[name] for name in _FRAMES if name in section.processor}
        made = made.showing(FramesRule(**frames)) if frames else made
        _READERS.clear()  # a command reads one model
        _READERS[key] = made
    return _READERS[key]


def _files(path: str) -> list[tuple[str, int, int]]:
    """The files of a folder that are not weights, with size and time: a changed one is loaded again."""
    if not Path(path).is_dir():
        return []
    found = ((file.name, file.stat()) for file in Path(path).iterdir() if file.suffix not in _WEIGHTS)
    return sorted((name, seen.st_size, seen.st_mtime_ns) for name, seen in found)


def planned_read(section: BackboneSection, config: PreTrainedConfig) -> PreTrainedModel:
    """The model of a config on the meta device, in the class it is loaded with; no processor is needed.

    Raises:
        RunError: If the model has no attention of the kind that is asked for.
    """
    kind = model_class_for(config, section.reader)
    make = kind.from_config if hasattr(kind, "from_config") else kind._from_config
    # Flash attention is asked for where the weights are loaded: it needs a GPU.
    wanted = {} if section.attention in (None, "flash") else {"attn_implementation": section.attention}
    try:
        with foreign_values(), torch.device("meta"):
            return make(config, **wanted)
    except ValueError as error:
        if wanted:
            raise RunError(
                f"`backbone.attention` must be one that the model has, but is {section.attention!r}: {error}"
            ) from None
        raise RunError(
            f"`backbone` must have a config that makes a model, but that of {section.title!r} does not: "
            f"{fault_of_loading(error)}. Correct its config.json, or get it again."
        ) from None


def load_read(section: BackboneSection, path: str, reader: Reader) -> PreTrainedModel:
    """The model of a recipe with its weights, in the class that its reader reads.

    Raises:
        OSError, ValueError: As `transformers` does; see `weft.train.backbones.saved.fault_of_loading`.
    """
    options: dict[str, Any] = {"dtype": "auto" if section.dtype == "auto" else _computed(section)}
    if section.attention is not None:
        options["attn_implementation"] = _ATTENTION[section.attention]
    if section.quantize is not None:
        options["quantization_config"] = _quantization(section)
    if isinstance(reader.config, ImageClassifierConfig) and section.heads is not None:
        saved = load_saved(AutoConfig, path, section.revision)
        if not isinstance(saved, ImageClassifierConfig):
            within = tower_options(reader.config.vision_config)
            tower = load_backbone_weights(AutoModel, section, path, **options, **within)
            return ImageClassifier(reader.config, tower)
    return load_backbone_weights(reader.model_class(reader.config), section, path, **options)


def load_backbone_weights(kind: Any, section: BackboneSection, path: str, **options: Any) -> PreTrainedModel:
    """The saved model of a recipe; one that lacks weights is refused unless the recipe lets them be drawn.

    Raises:
        RunError: If weights are absent.
        OSError, ValueError: As `transformers` does; see `weft.train.backbones.saved.fault_of_loading`.
    """
    if section.draw_absent_weights:
        return load_saved(kind, path, section.revision, **options)
    argument = "backbone.name" if section.name is not None else "backbone.language"
    key = "backbone.draw_absent_weights"
    return load_whole(kind, path, section.revision, argument=argument, key=key, **options)


def _computed(section: BackboneSection) -> torch.dtype:
    """What weights of a known type are kept in, and quantised ones computed in."""
    return torch.float32 if section.dtype in (None, "auto") else getattr(torch, section.dtype)


def _quantization(section: BackboneSection) -> BitsAndBytesConfig:
    if section.quantize == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=_computed(section),
    )


def _check_libraries(section: BackboneSection) -> None:
    if section.quantize is not None and find_spec("bitsandbytes") is None:
        raise RunError(
            f"`backbone.quantize` needs bitsandbytes, which is not installed, but is {section.quantize!r}. Run `pip "
            "install bitsandbytes`, or leave it out."
        )
    if section.attention == "flash" and not is_flash_attn_2_available():
        raise RunError(
            "`backbone.attention` needs flash-attn and a GPU for 'flash', and one of them is absent. Run `pip install "
            "flash-attn` on a machine with a GPU, or take 'sdpa'."
        )


def _check_own(section: BackboneSection) -> None:
    plain = BackboneSection(name=section.name)
    keys = ("dtype", "attention", "quantize", "processor", "reader")
    given = [key for key in keys if getattr(section, key) != getattr(plain, key)]
    if given:
        raise RunError(
            f"`backbone.{given[0]}` must be left out for a model of weft's own, which has no processor of "
            f"transformers, but {section.name!r} is one. Leave it out."
        )


def _processor(section: BackboneSection, path: str) -> Any:
    processor = load_processor(path, revision=section.revision)
    settings = {name: value for name, value in section.processor.items() if name not in _FRAMES}
    if not settings:
        return processor
    known = [*_settings(processor), *_FRAMES]
    for name in settings:
        if name not in known:
            raise RunError(
                f"`backbone.processor` must hold settings of the model's processor ({type(processor).__name__}), but "
                f"one is {name!r}. {near(name, known)}"
            )
    return load_processor(path, revision=section.revision, **_by_size(settings, processor))


def _by_size(settings: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """Settings in which numbers of pixels are a size, as releases of transformers to come want it."""
    size = getattr(getattr(processor, "image_processor", processor), "size", None)
    sizes = {
        edge: size.get(edge) if isinstance(size, dict) else getattr(size, edge, None) for edge in _PIXELS
    }
    pixels = {edge: settings[name] for edge, name in _PIXELS.items() if name in settings}
    if not pixels or None in sizes.values():
        return dict(settings)
    others = {name: value for name, value in settings.items() if name not in _PIXELS.values()}
    return {**others, "size": {**sizes, **others.get("size", {}), **pixels}}


def _settings(processor: Any) -> list[str]:
    """The options that a processor and its parts take when they are loaded."""
    parts = (processor, *(getattr(processor, name, None) for name in ("image_processor", "video_processor")))
    return sorted({name for part in parts if part is not None for name in _told(part)})


def _told(part: Any) -> Iterable[str]:
    declared = getattr(getattr(part, "valid_kwargs", None), "__annotations__", {})
    values = {
        name for name, value in vars(part).items() if isinstance(value, int | float | str | dict | list)
    }
    return {name for name in {*declared, *values} if not name.startswith("_")}

"""Models that recipes name: saved VL models, language models with visual tokens, and new architectures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    set_seed,
)

from weft.core import attach, load_adapter
from weft.core.backbone.text_length import fixed_text_length
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig, load_blip
from weft.data.media.transforms import CLIP_MEAN, CLIP_STD
from weft.data.processes.atomic import whole_folder
from weft.eval.readers import PairedProcessor, Reader, is_paired, reader_for
from weft.eval.readers.image_processor import ProcessorTransform, load_transform, square_transform
from weft.train.backbones.from_scratch import check_vocabulary, config_from, train_tokenizer
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.pretrained import (
    load_backbone_weights,
    load_read,
    own_reader,
    planned_read,
    saved_config,
)
from weft.train.backbones.saved import as_saved, load_saved, saved_path
from weft.train.errors import RunError
from weft.train.processes import ONE, Processes
from weft.train.recipe.sections import BackboneSection, TokenizerSection
from weft.train.recipe.training import Recipe
from weft.train.recipe.variables import expanded

ARCHITECTURES = Path(__file__).parent / "architectures"
Texts = Callable[[], Iterable[str]] | None


def load_backbone(
    section: BackboneSection, *, folder: Path | None = None, texts: Texts = None
) -> LoadedBackbone:
    """Load weights and tokenizer, or draw and train them.

    Args:
        section: The recipe's `backbone`.
        folder: Folder of the run; a tokenizer that is trained is kept there, and taken from there if it is.
        texts: What a tokenizer is trained on.

    Raises:
        RunError: If the model is not there, or is no VL model.
        ImageProcessorError: If its image processor cannot be loaded or used.
        ReaderError: If it has no processor that a reader reads.
    """
    with as_saved("backbone", section.title, "'miniature', a folder"):
        if section.config is not None:
            return _new(section, folder, texts)
        if section.language is not None:
            return _with_visual_tokens(section)
        return _saved(section)


def reader_of(section: BackboneSection) -> Reader:
    """The reader of a recipe's model, before any weight is loaded.

    That of a model without a processor of its own checks rows; it has no tokenizer, which may be yet to be trained.

    Raises:
        RunError: If its config cannot be read; or a library for its quantisation or attention is absent, or the
            processor has no such setting.
        ReaderError: If it has no processor, or none that a reader reads.
    """
    config = _config(section)
    if section.name is not None and not is_paired(config):
        return own_reader(section)
    return reader_for(config, PairedProcessor())


def _new(section: BackboneSection, folder: Path | None, texts: Texts) -> LoadedBackbone:
    assert section.config is not None, "asked for new architectures alone"
    tokenizer = _new_tokenizer(section, folder, texts)
    model = AutoModel.from_config(config_from(section.config))
    trained = isinstance(section.tokenizer, TokenizerSection)
    check_vocabulary(model, len(tokenizer), own_tokens=not trained)
    if section.weights is not None:
        load_blip(model, expanded(section.weights, "backbone.weights"))
    return _paired(section, model, tokenizer, _new_transform(section))


def _saved(section: BackboneSection) -> LoadedBackbone:
    config, path = saved_config(section), saved_path(section.name or "", "backbone.name")
    if not is_paired(config):
        reader = own_reader(section)
        return LoadedBackbone(load_read(section, path, reader), reader, section.title)
    tokenizer = load_saved(AutoTokenizer, path, section.revision)
    model = load_backbone_weights(AutoModel, section, path)
    return _paired(section, model, tokenizer, load_transform(path, section.revision))


def _paired(
    section: BackboneSection, model: PreTrainedModel, tokenizer: Any, transform: ProcessorTransform | None
) -> LoadedBackbone:
    """A model whose pictures are shown as the run decides; see `weft.train.runs.open_session.make_visual`."""
    processor = PairedProcessor(tokenizer, text_length=fixed_text_length(model))
    return LoadedBackbone(model, reader_for(model.config, processor), section.title, transform)


def load_adapted(
    recipe: Recipe,
    *,
    folder: Path | None = None,
    adapter: Path | None = None,
    texts: Texts = None,
    processes: Processes = ONE,
) -> LoadedBackbone:
    """The backbone of a recipe with its units, on the device of this process.

    Args:
        recipe: The recipe.
        folder: As for `load_backbone`.
        adapter: Folder of the weights that the units get; by default they are new.
        texts: As for `load_backbone`.
        processes: The processes of the run, all of which call this; the first one fills caches for the others.

    Raises:
        RunError: As `load_backbone` does.
        CheckpointError: If the adapter does not fit.
    """
    # A new architecture gets the weights it was drawn with, so that an adapter finds its backbone again.
    set_seed(recipe.seed)
    with processes.first_alone():
        backbone = load_backbone(recipe.backbone, folder=folder, texts=texts)
        if adapter is None:
            attach(backbone.model, recipe.method, list(recipe.tasks))
        else:
            load_adapter(backbone.model, adapter)
        backbone.model.to(processes.device)
    return backbone


def _new_transform(section: BackboneSection) -> ProcessorTransform:
    """A square: as BLIP was trained with where its weights are read, else with values from -1 to 1."""
    if section.weights is not None:
        return square_transform(section.image_size, CLIP_MEAN, CLIP_STD)
    half = (0.5, 0.5, 0.5)
    return square_transform(section.image_size, half, half, "bilinear")


def _new_tokenizer(section: BackboneSection, folder: Path | None, texts: Texts) -> Any:
    if isinstance(section.tokenizer, str):
        path = saved_path(section.tokenizer, "backbone.tokenizer")
        return load_saved(AutoTokenizer, path, section.revision)
    assert section.tokenizer is not None, "recipes give a tokenizer with every new architecture"
    kept = None if folder is None else folder / "tokenizer"
    if kept is not None and kept.is_dir():
        return load_saved(AutoTokenizer, str(kept))
    if texts is None:
        raise RunError(
            "`backbone.tokenizer` must be one that exists where there is no training data, but is to be trained."
            " Run the recipe first, and name the tokenizer of its folder."
        )
    tokenizer = train_tokenizer(texts(), section.tokenizer.vocabulary_size)
    if kept is not None:
        with whole_folder(kept) as partial:
            tokenizer.save_pretrained(partial)
    return tokenizer


def _with_visual_tokens(section: BackboneSection) -> LoadedBackbone:
    path = saved_path(section.language or "", "backbone.language")
    tokenizer = load_saved(AutoTokenizer, path, section.revision)
    config = load_saved(AutoConfig, path, section.revision)
    model = VisualSeq2Seq(_composite(section, config))
    pretrained = load_backbone_weights(AutoModelForSeq2SeqLM, section, path)
    model.language_model.load_state_dict(pretrained.state_dict())
    count = section.num_sentinels
    names = [f"<{kind}_{k}>" for kind in ("extra_id", "vis_extra_id") for k in reversed(range(count))]
    tokenizer.add_tokens([name for name in names if name not in tokenizer.get_vocab()], special_tokens=True)
    model.language_model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.config.language_config.vocab_size = len(tokenizer)
    return _paired(section, model, tokenizer, None)


def planned_model(section: BackboneSection) -> PreTrainedModel:
    """The model of a recipe on the meta device: shapes and names, no weights; tied weights are tied.

    The architectures of the papers' backbones are part of weft; others are read from a folder or the hub.
    """
    model = planned_read(section, _config(section))
    model.tie_weights()
    return model


def _config(section: BackboneSection) -> PreTrainedConfig:
    """The config of a recipe's model: new, saved, or that of a language model with visual tokens."""
    if section.config is not None:
        return config_from(section.config)
    if section.name is not None:
        return saved_config(section)
    return _composite(section, _architecture(section))


def _architecture(section: BackboneSection) -> PreTrainedConfig:
    """The config of a language model with its sentinels: from weft's own list, else from the folder or the hub."""
    name = section.language or ""
    path = ARCHITECTURES / f"{name.replace('/', '--')}.json"
    if path.is_file():
        values = json.loads(path.read_text(encoding="utf-8"))
        config = CONFIG_MAPPING[values["config"]["model_type"]].from_dict(values["config"])
        # T5 keeps spare rows after its pieces and sentinels: the visual tokens begin there.
        config.vocab_size = values["tokens"] + 2 * section.num_sentinels - values["sentinels"]
        return config
    known = ", ".join(sorted(p.stem.replace("--", "/") for p in ARCHITECTURES.glob("*.json")))
    with as_saved("backbone.language", name, f"a model that weft knows ({known}), a folder", done="read"):
        config = load_saved(AutoConfig, saved_path(name, "backbone.language"), section.revision)
        config.vocab_size += 2 * section.num_sentinels
        return config


def _composite(section: BackboneSection, language: PreTrainedConfig) -> VisualSeq2SeqConfig:
    return VisualSeq2SeqConfig(
        language,
        None,
        feature_size=section.feature_size,
        num_visual_tokens=section.num_visual_tokens,
        num_images=section.num_images,
    )

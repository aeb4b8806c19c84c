"""Frozen encoders of images and texts that few-shot recipes name: of transformers, of open_clip, and weft's own."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer

from weft.core.composites import BlipRetrieval, BlipRetrievalConfig, load_blip
from weft.core.few_shot import ImageTextEncoder
from weft.data.media.transforms import Resample
from weft.eval.readers.image_processor import (
    ProcessorTransform,
    load_transform,
    short_side_transform,
    square_transform,
)
from weft.train.backbones.saved import (
    as_saved,
    fault_of_loading,
    foreign_values,
    load_saved,
    load_whole,
    saved_path,
)
from weft.train.errors import RunError, near
from weft.train.output.files import sha256_of
from weft.train.recipe.few_shot import EncoderSection
from weft.train.recipe.variables import expanded

Loaded = tuple[nn.Module, Callable[..., Any], ProcessorTransform]

_BLIPS = ("blip", "weft_blip_retrieval")
_FILTERS: dict[str, Resample] = {"bicubic": "bicubic", "bilinear": "bilinear"}
_TRIED = (96, 64)
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")  # what OpenAI's files hold beside them


def load_encoder(section: EncoderSection) -> tuple[ImageTextEncoder, ProcessorTransform]:
    """The encoder of a recipe, frozen, and its image processor.

    Raises:
        RunError: The library, the model, its weights, tokenizer or image processor cannot be had, or the weights are
            others than the recipe says.
        BackboneError: The model has no text side.
        ImageProcessorError: The image processor cannot be loaded or used.
    """
    load = _open_clip if section.library == "open_clip" else _saved
    model, tokenizer, transform = load(section)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = ImageTextEncoder(model.to(device), tokenizer)
    # Files that do not belong together are told before a data set is read.
    with as_saved("encoder.name", section.name):
        encoder.encode_texts(["a"])
        encoder.encode_images(transform.batch([Image.new("RGB", _TRIED)]))
    return encoder, transform


def width_of(section: EncoderSection) -> int | None:
    """Width of an encoder's features: what the recipe says, or its configuration where that is on this machine."""
    if section.width is not None:
        return section.width
    if section.library == "open_clip":
        return _open_clip_width(section.name)
    config = _config_here(section)
    if config is None:
        return None
    if config.model_type in _BLIPS:
        return int(config.image_text_hidden_size)
    # CLIP and weft's own encoder name the width of their common space; SigLIP's is that of its image tower.
    towers = (
        (config, "projection_dim"),
        (config, "projection_size"),
        (getattr(config, "vision_config", None), "hidden_size"),
    )
    return next((width for owner, name in towers if (width := getattr(owner, name, None)) is not None), None)


def architecture_of(section: EncoderSection) -> nn.Module | None:
    """An encoder on the meta device, or None where its configuration is not on this machine."""
    with torch.device("meta"):
        if section.library == "open_clip":
            if _open_clip_width(section.name) is None:
                return None
            return _open_clip_model(section, device="meta")
        config = _config_here(section)
        if config is None:
            return None
        if section.library == "weft" and config.model_type in _BLIPS:
            return BlipRetrieval(_as_blip(config))
        return AutoModel.from_config(config)


def _config_here(section: EncoderSection) -> Any | None:
    """The configuration of a saved model, where it is on this machine."""
    path = str(Path(section.name).expanduser()) if Path(section.name).expanduser().exists() else section.name
    try:
        return load_saved(AutoConfig, path, section.revision, local_files_only=True)
    except (OSError, ValueError):
        return None


def _saved(section: EncoderSection) -> Loaded:
    """A saved model of transformers or of weft."""
    path = saved_path(section.name, "encoder.name")
    with as_saved("encoder.name", section.name):
        config = load_saved(AutoConfig, path, section.revision)
        if section.library == "weft":
            model = _own(section, path, config)
        else:
            model = load_whole(AutoModel, path, section.revision, argument="encoder.name")
    ImageTextEncoder.check(model)  # a model without a text side has no tokenizer to look for
    with as_saved("encoder.name", section.name):
        tokenizer = load_saved(AutoTokenizer, path, section.revision)
    transform = load_transform(path, section.revision)
    if transform is None:
        raise RunError(
            f"`encoder` must have an image processor, but {section.name!r} has none. Save it beside the model: "
            "preprocessor_config.json, or processor_config.json as transformers 5 writes it."
        )
    return model, tokenizer, transform


def _own(section: EncoderSection, path: str, config: Any) -> nn.Module:
    """One of weft's own models; a BLIP of transformers becomes weft's, whose retrieval passes are BLIP's own."""
    if config.model_type not in _BLIPS:
        if section.weights is not None:
            raise RunError(
                f"`encoder.weights` must be left out unless `name` is a BLIP, whose original files it names, but "
                f"{section.name!r} is a {config.model_type}. Leave it out."
            )
        return load_whole(AutoModel, path, section.revision, argument="encoder.name")
    blip = _as_blip(config)
    if section.weights is None:
        return load_whole(BlipRetrieval, path, section.revision, argument="encoder.name", config=blip)
    model = BlipRetrieval(blip)
    load_blip(model, _weights(section))
    return model


def _as_blip(config: Any) -> BlipRetrievalConfig:
    values = {name: value for name, value in config.to_dict().items() if name != "model_type"}
    return BlipRetrievalConfig.from_dict(values)


def _open_clip(section: EncoderSection) -> Loaded:
    """An architecture of open_clip with the weights of a file."""
    library = _library(section)
    if section.name not in library.list_models():
        raise RunError(
            f"`encoder.name` must be an architecture of open_clip, but is {section.name!r}. "
            f"{near(section.name, library.list_models())}"
        )
    path = _weights(section)
    script = _is_torchscript(path)
    if script and section.sha256 is None:
        raise RunError(
            f"`encoder.sha256` must be given for {path.name}, because it is a TorchScript archive, which holds a "
            "program. OpenAI's addresses hold the digest of each of its files."
        )
    with as_saved("encoder.name", section.name):
        # OpenAI's models compute GELU as x σ(1.702 x); other files of open_clip name architectures that say so.
        model = _open_clip_model(section, force_quick_gelu=script)
    try:
        with foreign_values():
            if script:
                state = torch.jit.load(path, map_location="cpu").state_dict()
                model.load_state_dict({key: state[key] for key in state if key not in _NOT_WEIGHTS})
            else:
                library.factory.load_checkpoint(model, str(path))
    except (OSError, ValueError) as error:
        raise RunError(
            f"`encoder.weights` must fit {section.name!r} of open_clip, but {path} does not: "
            f"{fault_of_loading(error)}"
        ) from error
    return model, library.get_tokenizer(section.name), _open_clip_transform(model)


def _open_clip_model(section: EncoderSection, **options: Any) -> Any:
    """An architecture of open_clip with random weights."""
    return _library(section).create_model(section.name, load_weights=False, pretrained_text=False, **options)


def _open_clip_transform(model: nn.Module) -> ProcessorTransform:
    """What open_clip's own preprocessing does to a picture, by an image processor of transformers."""
    settings: dict[str, Any] = model.visual.preprocess_cfg  # type: ignore[union-attr, assignment]
    size, resample = settings["size"], _FILTERS.get(settings["interpolation"])
    side = size if isinstance(size, int) else size[0]
    square = isinstance(size, int) or size[0] == size[1]
    make = {"shortest": short_side_transform, "squash": square_transform}.get(settings["resize_mode"])
    if resample is None or make is None or not square:
        raise RunError(
            f"`encoder.name` must be an architecture whose pictures are resized to a square, by `shortest` or "
            f"`squash`, but its preprocessing is {settings}. Choose another."
        )
    return make(side, settings["mean"], settings["std"], resample)


def _open_clip_width(name: str) -> int | None:
    try:
        import open_clip
    except ImportError:
        return None
    config = open_clip.get_model_config(name)
    return None if config is None else int(config["embed_dim"])


def _library(section: EncoderSection) -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise RunError(
            f"`encoder.library` needs open_clip for 'open_clip', but it cannot be imported: {error}. Run `pip install "
            "open_clip_torch`, with a torchvision that is built like torch."
        ) from None
    return open_clip


def _weights(section: EncoderSection) -> Path:
    """The file of weights, which is the one that the recipe says."""
    path = Path(expanded(section.weights or "", "encoder.weights"))
    if not path.is_file():
        raise RunError(
            f"`encoder.weights` must be a file, but there is none at {path.absolute()}. Download it, and correct "
            "the path."
        )
    if section.sha256 is not None:
        digest = sha256_of(path)
        if digest != section.sha256.lower():
            raise RunError(
                f"`encoder.weights` must have the SHA-256 {section.sha256}, but {path} has {digest}: it is another "
                "file, or a damaged one. Download it again, or correct `encoder.sha256`."
            )
    return path


def _is_torchscript(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # or it is none; whoever reads it says so
        return False

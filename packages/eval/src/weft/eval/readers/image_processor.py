"""Pictures to pixel tensors, by the image processor that belongs to a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from transformers import AutoConfig, AutoImageProcessor
from transformers.image_processing_backends import PilBackend
from transformers.models.auto.image_processing_auto import get_image_processor_config
from transformers.utils import is_torchvision_available

from weft.data.errors import CorruptMediaError
from weft.data.media.transforms import Resample
from weft.data.sources.limits import check_made, check_resize
from weft.eval.errors import ImageProcessorError
from weft.eval.readers.missing_library import missing_library

_FILTERS = {way.value: cast("Resample", way.name.lower()) for way in Image.Resampling}
_NAMES = ("image_processor_type", "feature_extractor_type", "auto_map")
_ABOUT_FILES = (*_NAMES, "processor_class", "_processor_class", "image_processor_class")
# What a library stumbles over in settings that somebody else wrote.
_FAULTS = (
    OSError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    ImportError,
    RuntimeError,
)
_STEPS = (
    "preprocess",
    "_preprocess_image_like_inputs",
    "_preprocess",
    "process_image",
    "rescale",
    "normalize",
)
_TRIED = (96, 64)


class Transform(Protocol):
    """What turns one picture into the pixels that a vision tower reads, the same for the same picture."""

    @property
    def resample(self) -> Resample:
        """Filter of its resize."""

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the pixels, shape `(3, height, width)`."""

    def batch(self, images: Iterable[Image.Image]) -> dict[str, Tensor]:
        """Return what a vision tower reads of some pictures, by argument; pictures or patches of pictures."""

    def view_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the height and width to which a random crop is resized, so that it need not be resized again."""

    def fingerprint(self) -> str:
        """Return a SHA-256 that changes whenever the pixels may change."""


@dataclass(frozen=True)
class ProcessorTransform:
    """The image processor of a model, for pictures that are decoded already.

    Args:
        processor: An image processor of `transformers`, of either backend.
    """

    processor: Any

    def inputs(self, images: Sequence[Image.Image]) -> dict[str, Tensor]:
        """What the processor makes of some pictures: `pixel_values`, and whatever else its model reads.

        Args:
            images: Pictures, of any mode and of unequal sizes.

        Raises:
            ImageProcessorError: If the processor refuses them.
            CorruptMediaError: If one is so long and narrow that the resize of its short side passes
                `WEFT_MAX_RESIZED_PIXELS`.
        """
        with self._taking(images):
            pictures = [self._prepared(image) for image in images]
            made = self.processor(images=pictures, return_tensors="pt")
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Return the `pixel_values` of one picture, shape `(3, height, width)`, as the processor makes them.

        Raises:
            ImageProcessorError: If the processor refuses it, or makes anything else of it, such as patches.
            CorruptMediaError: See `inputs`.
        """
        with self._taking([image]):
            levels = self._levels
            pixels = None if levels is None else self._looked_up(self._prepared(image), levels)
        if pixels is None:
            pixels = self.inputs([image])["pixel_values"].numpy()
            pixels = pixels[0] if pixels.ndim == 4 else pixels
        if pixels.ndim != 3 or pixels.shape[0] != 3:
            raise ImageProcessorError(
                f"`image_processor_type` must be of a processor that gives one picture of 3 channels, but "
                f"{type(self.processor).__name__} gives an array of shape {tuple(pixels.shape)}. Take a backbone whose "
                "vision tower reads pictures as a whole."
            )
        return pixels.astype(np.float32, copy=False)

    def batch(self, images: Iterable[Image.Image]) -> dict[str, Tensor]:
        """Return `pixel_values` of whole pictures; of patches also what says whose they are, as SigLIP 2 reads them.

        Args:
            images: Pictures, of any mode and of unequal sizes; whole ones are taken one at a time.

        Raises:
            ImageProcessorError: If the processor refuses them, or brings them to several sizes.
            CorruptMediaError: See `inputs`.
        """
        if self._gives_patches:
            return self.inputs(list(images))
        return {"pixel_values": stacked([self(image) for image in images])}

    @property
    def resample(self) -> Resample:
        """Filter of the resize; bilinear where the processor names none, as its library takes then."""
        value = getattr(self.processor, "resample", None)
        return _FILTERS.get(value, "bilinear") if isinstance(value, int) else "bilinear"

    def view_size(self, image: Image.Image) -> tuple[int, int]:
        """Return the height and width to which a random crop is resized; see `Transform`."""
        size = _sides(self.processor, "do_resize", "size")
        for one, other in (("height", "width"), ("max_height", "max_width")):
            if size.get(one) and size.get(other):
                return size[one], size[other]
        if side := size.get("shortest_edge") or size.get("longest_edge"):
            return side, side
        crop, side = _sides(self.processor, "do_center_crop", "crop_size"), min(image.size)
        return crop.get("height") or side, crop.get("width") or side

    def fingerprint(self) -> str:
        """Return a SHA-256 of the processor's class and settings; the backend is part of the class."""
        values = {name: value for name, value in self.processor.to_dict().items() if name not in _ABOUT_FILES}
        text = json.dumps([type(self.processor).__name__, values], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def _prepared(self, image: Image.Image) -> Image.Image:
        check_growth(self.processor, image)
        return image.convert("RGB")

    @contextmanager
    def _taking(self, images: Sequence[Image.Image]) -> Iterator[None]:
        try:
            yield
        except CorruptMediaError:
            raise
        except _FAULTS as error:
            sizes = ", ".join(dict.fromkeys(f"{image.width} x {image.height}" for image in images))
            raise ImageProcessorError(
                f"The image processor {type(self.processor).__name__} must take pictures of {sizes} pixels, but says: "
                f"{error} Fix its settings, or leave such pictures out."
            ) from error

    @cached_property
    def _gives_patches(self) -> bool:
        pixels = self.inputs([Image.new("RGB", _TRIED)])["pixel_values"]
        return pixels.ndim == 3 and pixels.shape[0] == 1

    @cached_property
    def _levels(self) -> NDArray[Any] | None:
        """What rescale and normalisation make of each level 0..255, shape `(3, 256)`; None where there is more to it.

        Both act on one value at a time, so that looking them up gives the processor's own numbers, in a quarter of
        the time.
        """
        processor = self.processor
        kind = type(processor)
        own = [step for step in _STEPS if getattr(kind, step, None) is not getattr(PilBackend, step, None)]
        if own or getattr(processor, "do_pad", None):
            return None
        pixels: Any = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
        if processor.do_rescale:
            pixels = processor.rescale(pixels, processor.rescale_factor)
        if processor.do_normalize:
            pixels = processor.normalize(pixels, processor.image_mean, processor.image_std)
        return cast("NDArray[Any]", pixels[:, 0])

    def _looked_up(self, image: Image.Image, levels: NDArray[Any]) -> NDArray[Any] | None:
        processor = self.processor
        pixels = np.moveaxis(np.array(image), -1, 0)
        if processor.do_resize:
            pixels = processor.resize(image=pixels, size=processor.size, resample=processor.resample)
        if processor.do_center_crop:
            pixels = processor.center_crop(pixels, processor.crop_size)
        if pixels.dtype != np.uint8:
            return None
        return np.stack([np.take(table, channel) for table, channel in zip(levels, pixels, strict=True)])


def load_transform(path: str, revision: str | None = None) -> ProcessorTransform | None:
    """The image processor of a saved model, tried on one picture; None if the model states none.

    Args:
        path: Folder or hub id.
        revision: Commit, tag or branch of a hub id.

    Raises:
        ImageProcessorError: If one is stated that cannot be loaded, or cannot be used.
    """
    try:
        stated: dict[str, Any] = get_image_processor_config(path, revision=revision)
        if not stated:
            return None
        processor = _load(path, revision, stated)
    except _FAULTS as error:
        raise ImageProcessorError(
            f"The image processor of {path!r} must load with `AutoImageProcessor`, but does not: {_said(error, path)}"
        ) from error
    transform = ProcessorTransform(processor)
    transform.inputs([Image.new("RGB", _TRIED)])
    return transform


def square_transform(
    size: int, mean: Sequence[float], std: Sequence[float], resample: Resample = "bicubic"
) -> ProcessorTransform:
    """The image processor of a new model: a resize to a square, and a normalisation.

    Args:
        size: Side of the square, pixels.
        mean: One value per channel, range 0..1.
        std: One value per channel.
        resample: Filter of the resize.
    """
    square = {"height": size, "width": size}
    return _new_transform("Blip", mean, std, resample, size=square)


def short_side_transform(
    size: int, mean: Sequence[float], std: Sequence[float], resample: Resample = "bicubic"
) -> ProcessorTransform:
    """The image processor of CLIP and its like: the short side resized, the square in the middle, a normalisation.

    Arguments as in `square_transform`.
    """
    square = {"height": size, "width": size}
    return _new_transform("CLIP", mean, std, resample, size={"shortest_edge": size}, crop_size=square)


def _new_transform(
    name: str, mean: Sequence[float], std: Sequence[float], resample: Resample, **sizes: dict[str, int]
) -> ProcessorTransform:
    number = Image.Resampling[resample.upper()].value
    made = _processor(name)(resample=number, image_mean=list(mean), image_std=list(std), **sizes)
    return ProcessorTransform(made)


def check_growth(processor: Any, image: Image.Image) -> None:
    """Refuse what an image processor would make huge: a long and narrow picture, or any by settings of its own.

    Only a processor that resizes the short side alone makes a picture huge by its form.

    Raises:
        CorruptMediaError: If it would have more pixels than `WEFT_MAX_RESIZED_PIXELS` says.
    """
    size = _sides(processor, "do_resize", "size")
    if size.get("shortest_edge") and not size.get("longest_edge"):
        check_resize(*image.size, size["shortest_edge"])
    for switch, name in (("do_resize", "size"), ("do_center_crop", "crop_size"), ("do_pad", "pad_size")):
        sides = _sides(processor, switch, name)
        check_made(sides.get("width", 0), sides.get("height", 0), f"`{name}` of its image processor")


def stacked(pictures: Sequence[NDArray[np.float32]]) -> Tensor:
    """Pixels of some pictures as one tensor, shape `(pictures, 3, height, width)`.

    Raises:
        ImageProcessorError: If they have several sizes, as where a processor neither resizes nor crops.
    """
    sizes = dict.fromkeys(f"{pixels.shape[-1]} x {pixels.shape[-2]}" for pixels in pictures)
    if len(sizes) > 1:
        raise ImageProcessorError(
            f"`size` of the image processor must bring all pictures to one size, but some have {', '.join(sizes)} "
            "pixels after it. Set `do_resize`, or `do_center_crop` with `crop_size`, or give pictures of one size."
        )
    return torch.from_numpy(np.stack(pictures))


def _load(path: str, revision: str | None, stated: Mapping[str, Any]) -> Any:
    if not any(name in stated for name in _NAMES):
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
        if type(config).__module__.startswith("weft."):
            # Models of weft's own classes, which the library knows no processor for, state all steps in the file.
            return _processor("Blip").from_dict(dict(stated))
    return AutoImageProcessor.from_pretrained(path, revision=revision, trust_remote_code=False)


def _processor(name: str) -> Any:
    """The processor of CLIP, or that of BLIP, which resizes, crops and normalises as it is told, and nothing else."""
    backend = "" if is_torchvision_available() else "Pil"
    return getattr(transformers, f"{name}ImageProcessor{backend}")


def _said(error: Exception, path: str) -> str:
    text = str(error).strip() or type(error).__name__
    if "trust_remote_code" in text:
        return "it comes with code of its own, which weft never runs. Save one of `transformers` beside the model."
    package = missing_library(error, path)
    if package is not None:
        return f"{text} It needs {package}, which is not installed here: pip install {package}"
    return f"{text} Fix preprocessor_config.json or processor_config.json."


def _sides(processor: Any, switch: str, name: str) -> dict[str, int]:
    """The sides of `size` or `crop_size` that are set, or nothing where that step is switched off."""
    value = getattr(processor, name, None)
    if not getattr(processor, switch, None) or value is None:
        return {}
    return {key: int(side) for key, side in dict(value).items() if side is not None}

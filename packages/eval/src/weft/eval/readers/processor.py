"""Processors: loading one from a model's folder, and calling it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from weft.eval.readers.errors import MissingProcessorError
from weft.eval.readers.image_processor import check_growth
from weft.eval.readers.missing_library import missing_library
from weft.eval.readers.rows import Row, decoded
from weft.eval.readers.video_frames import Film


def load_processor(path: str, *, revision: str | None = None, **options: Any) -> Any:
    """The processor of a model; code that comes with it is never run.

    Args:
        path: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        **options: Settings that are handed to it, such as `min_pixels`.

    Raises:
        MissingProcessorError: If there is none, or it needs a library that is absent or code of its own.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(
            path, revision=revision, **{**options, "trust_remote_code": False}
        )
    except MemoryError:
        raise
    except Exception as error:  # a foreign folder can fail in any way; no code in it is run
        if "trust_remote_code" in str(error):
            raise MissingProcessorError(
                f"`backbone.name` must have a processor that transformers knows, but that of {path!r} needs code of "
                "its own, which weft never runs. Take a model of a type that transformers knows."
            ) from None
        package = missing_library(error, path)
        if package is not None:
            raise MissingProcessorError(
                f"the processor of {path!r} needs {package}, which is not installed. Run `pip install {package}`"
                f"{_BUILD if package == 'torchvision' else ''}."
            ) from None
        raise MissingProcessorError(
            f"`backbone.name` must have a processor beside the model, but that of {path!r} cannot be loaded: {error} "
            "Save it into the folder with `processor.save_pretrained`."
        ) from None


NUMPY_OF_TENSORS = "__array__ implementation|__array_wrap__ must accept"
_BUILD = " in the build of your torch (a CPU torch needs a CPU torchvision)"


def processed(
    processor: Any,
    pictures: Sequence[Sequence[Any]] | None,
    texts: Sequence[str],
    films: Sequence[Film] = (),
    **options: Any,
) -> dict[str, Any]:
    """Call a processor on pictures, videos and texts.

    Texts are padded on the right, whatever the tokenizer's own side: a processor hands the side of one tokenizer to
    the others, and an encoder counts positions from the left.

    Args:
        processor: The processor.
        pictures: A list for each text, or None for texts alone.
        texts: The texts.
        films: The videos of all texts, in their order.
        **options: Further arguments.

    Returns:
        Its tensors.

    Raises:
        CorruptMediaError: If a picture is so long and narrow that the resize of its short side passes
            `WEFT_MAX_RESIZED_PIXELS`.
    """
    for own in pictures or ():
        for picture in own:
            check_growth(processor.image_processor, picture)
    settings = {"padding": True, "padding_side": "right", "return_tensors": "pt", **options}
    if films:
        # A processor that must tell when frames were filmed is told how they were chosen.
        settings |= {
            "videos": [film.frames for film in films],
            "video_metadata": [film.metadata for film in films],
            "do_sample_frames": False,
        }
    with warnings.catch_warnings():
        # Some processors make arrays of tensors, which torch and numpy 2 comment on.
        warnings.filterwarnings("ignore", message=NUMPY_OF_TENSORS, category=DeprecationWarning)
        made = dict(processor(images=pictures, text=list(texts), **settings))
    return {name: value for name, value in made.items() if name != "video_metadata"}


def pictured(processor: Any, rows: Sequence[Row]) -> dict[str, Any]:
    """What a processor's own image processor makes of the pictures of rows, by the settings that it was saved with.

    Raises:
        CorruptMediaError: See `processed`.
    """
    pictures = [picture for row in rows for picture in decoded(row)]
    for picture in pictures:
        check_growth(processor.image_processor, picture)
    return dict(processor.image_processor(images=pictures, return_tensors="pt"))


def unread(processor: Any) -> str | None:
    """Why a processor is none of pictures and texts, or None if it is."""
    if getattr(processor, "image_processor", None) is None or not hasattr(processor, "tokenizer"):
        return f"its processor ({type(processor).__name__}) does not read pictures and texts"
    return None


def blank(size: tuple[int, int] = (32, 32)) -> Any:
    """A small black picture, to ask a processor what it does."""
    from PIL import Image

    return Image.new("RGB", size)

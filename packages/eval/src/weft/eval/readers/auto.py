"""Which reader a model is read by: what its config and its processor say decides, not a list of models."""

from __future__ import annotations

from typing import Any

from weft.eval.readers.errors import ReaderError
from weft.eval.readers.limits import Limits
from weft.eval.readers.paired import PairedProcessor
from weft.eval.readers.reader import Reader, title_of
from weft.eval.readers.registry import reader, readers


def model_class_for(config: Any, name: str = "auto") -> Any:
    """The class that models of a config are loaded with, their processor unseen.

    Args:
        config: The model's config.
        name: A name of `readers()`, or `auto` for any that builds such models.

    Raises:
        ReaderError: If none does.
    """
    if name != "auto":
        return reader(name).model_class(config)
    building = [kind for kind in readers().values() if kind.builds(config)]
    if not building:
        raise ReaderError(
            "`backbone.name` must be a vision-language model that weft can read (one that "
            "`AutoModelForImageTextToText` loads, a BLIP, or a dual encoder such as CLIP), but is a model of type "
            f"{getattr(config, 'model_type', type(config).__name__)}. Take one of these, or register a reader."
        )
    return building[0].model_class(config)


def is_paired(config: Any) -> bool:
    """Whether models of a config have no processor of transformers: their tokenizer and pictures are put together."""
    return any(kind.fault(config, PairedProcessor()) is None for kind in readers().values())


def reader_for(config: Any, processor: Any, name: str = "auto", limits: Limits | None = None) -> Reader:
    """The reader of a model.

    Args:
        config: The model's config.
        processor: Its processor.
        name: A name of `readers()`, or `auto` for the one that fits.
        limits: How long a row may be.

    Raises:
        ReaderError: If none or several fit, or the named one does not.
    """
    if name != "auto":
        return reader(name)(config, processor, limits)
    faults = {name: kind.fault(config, processor) for name, kind in readers().items()}
    fitting = [name for name, fault in faults.items() if fault is None]
    if not fitting:
        listed = "; ".join(f"{name}: {fault}" for name, fault in faults.items())
        raise ReaderError(
            f"`reader` must fit the model, but none does for {title_of(config)} ({listed}). Give the model a processor "
            "with a chat template, or register a reader."
        )
    if len(fitting) > 1:
        raise ReaderError(
            f"`reader` must be named where several fit, but is 'auto', and {' and '.join(fitting)} fit "
            f"{title_of(config)}. Name one of them."
        )
    return reader(fitting[0])(config, processor, limits)

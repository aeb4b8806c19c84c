"""What a vision tower and its connector make of pictures: taken from a model, and handed to it in their place.

It needs the tokens of pictures to be replaced by what `get_image_features` of the model gives, and by nothing else; the
model then takes that as `mm_encoder_outputs` too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.utils import ModelOutput

HANDED = "mm_encoder_outputs"
COMPANY = "batch_num_images"
"""What a processor tells of a row's pictures where one alone is seen otherwise than several."""


@dataclass(frozen=True)
class PictureFeatures:
    """What takes the place of the tokens of pictures.

    Attributes:
        values: A line for each such token, pictures one after the other, shape `(tokens, width)`. What later layers
            get for it stands after what the first gets.
        layers: Number of later layers that get something.
        listed: Whether the model takes a list of them; else one tensor.
    """

    values: Tensor
    layers: int = 0
    listed: bool = True

    def changed(self, change: Callable[[Tensor], Tensor]) -> PictureFeatures:
        """The same with other values."""
        return replace(self, values=change(self.values))

    def handed(self) -> dict[str, Any]:
        """The argument of the model's `forward`."""
        first, *later = self.values.chunk(1 + self.layers, dim=1)
        made = ModelOutput(pooler_output=(first,) if self.listed else first[None])
        if later:
            made["deepstack_features"] = [(value,) for value in later]
        return {HANDED: {"image": made}}


def takes_features(config: Any) -> bool:
    """Whether models of a config take features in the place of pictures.

    A Q-Former reads more of the tower than it returns, and sometimes the question as well.
    """
    kind = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING.get(type(config), None)
    if kind is None or hasattr(config, "qformer_config"):
        return False
    return HANDED in inspect.signature(kind.forward).parameters


def make_features(model: Any, inputs: Mapping[str, Tensor]) -> PictureFeatures:
    """Run the tower of a model that `takes_features`, and what follows it up to the language model."""
    make = holder_of(model).get_image_features
    known = inspect.signature(make).parameters
    own = {name: value for name, value in inputs.items() if name in known}
    found = make(**own, return_dict=True)
    pooled, listed = found.pooler_output, isinstance(found.pooler_output, list | tuple)
    first = torch.cat(tuple(pooled)) if listed else pooled.flatten(0, -2)
    later = [torch.cat(tuple(layer)) for layer in getattr(found, "deepstack_features", None) or ()]
    return PictureFeatures(torch.cat([first, *later], dim=1), len(later), listed)


def holder_of(model: Any) -> Any:
    """The part of a model that `takes_features` that holds tower, connector and language model."""
    return model.model


def language_model_of(model: Any) -> str:
    """Name of the language model within `holder_of`; all beside it is what features depend on."""
    decoder = model.get_decoder()
    return next(name for name, part in holder_of(model).named_children() if part is decoder)

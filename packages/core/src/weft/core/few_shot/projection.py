"""The last linear map of an encoder's image side, and what it reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from weft.core.errors import BackboneError
from weft.core.few_shot.encoder import ImageTextEncoder

# CLIP of transformers, weft's dual encoder, weft's BLIP.
_LINEAR = ("visual_projection", "image_projection", "vision_proj")


class VisualProjection:
    """The map from what a vision tower gives to the space of images and texts.

    Args:
        encoder: CLIP of transformers or of open_clip (ViT or ResNet), weft's dual encoder or its BLIP.

    Attributes:
        weight: Shape (width, width of the tower), float32.
        bias: Shape (width,), or None.

    Raises:
        BackboneError: The image side ends in something else, as SigLIP's does.
    """

    def __init__(self, encoder: ImageTextEncoder) -> None:
        self._encoder = encoder
        self._parent, self._name = _found(encoder.model)
        self._is_inlined = self._parent is not encoder.model
        self.weight: Tensor = self.weight_of(encoder.model).detach().float()
        bias = getattr(getattr(self._parent, self._name), "bias", None)
        self.bias: Tensor | None = None if bias is None else bias.detach().float()

    @staticmethod
    def weight_of(model: nn.Module) -> Tensor:
        """The map of a model, shape (width, width of the tower).

        Raises:
            BackboneError: As the class.
        """
        own = getattr(*_found(model))
        return own.T if isinstance(own, Tensor) else own.weight

    def before(self, pixel_values: Tensor) -> Tensor:
        """What the map reads of some images, shape (images, width of the tower), float32."""
        with torch.no_grad():
            return (self._unprojected(pixel_values) if self._is_inlined else self._read(pixel_values)).float()

    def _read(self, pixel_values: Tensor) -> Tensor:
        """What a map that is called gets."""
        seen: list[Tensor] = []
        handle = getattr(self._parent, self._name).register_forward_pre_hook(
            lambda module, arguments: seen.append(arguments[0])
        )
        try:
            self._encoder.image_features(pixel_values)
        finally:
            handle.remove()
        return seen[0]

    def _unprojected(self, pixel_values: Tensor) -> Tensor:
        """What open_clip gives with the identity in the place of its map, which it multiplies by and never calls."""
        own, size = getattr(self._parent, self._name), self.weight.shape[1]
        if isinstance(own, nn.Linear):
            other: nn.Module | nn.Parameter = nn.Linear(size, size).to(own.weight).requires_grad_(False)
            other.weight.copy_(torch.eye(size))  # type: ignore[operator, union-attr]
            other.bias.zero_()  # type: ignore[operator, union-attr]
        else:
            other = nn.Parameter(torch.eye(size).to(own), requires_grad=False)
        setattr(self._parent, self._name, other)
        try:
            found: Tensor = self._encoder.model.encode_image(pixel_values.to(self._encoder.device))  # type: ignore[operator]
        finally:
            setattr(self._parent, self._name, own)
        return found


def _found(model: nn.Module) -> tuple[nn.Module, str]:
    """The module that holds the map, and the map's name."""
    for name in _LINEAR:
        if isinstance(getattr(model, name, None), nn.Linear):
            return model, name
    visual = getattr(model, "visual", None)
    if isinstance(getattr(visual, "proj", None), nn.Parameter):
        return visual, "proj"  # type: ignore[return-value]
    pool = getattr(visual, "attnpool", None)
    if isinstance(getattr(pool, "c_proj", None), nn.Linear):
        return pool, "c_proj"  # type: ignore[return-value]
    raise BackboneError(
        f"`encoder` must end in a linear map of the image's features, but {type(model).__name__} does not. Choose a "
        "CLIP, or a head that needs none, such as clip_lora."
    )

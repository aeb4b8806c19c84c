"""Which tokens of a decoder-only model stand for images: its config names them, its input holds them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from weft.core.backbone.owners import IMAGE_TOKENS, VIDEO_TOKENS
from weft.core.errors import ConfigError

_FIELDS = (*IMAGE_TOKENS, *VIDEO_TOKENS)


def image_tokens(config: Any) -> tuple[int, ...]:
    """Ids of the tokens that a decoder-only model replaces by features of images or videos, from its config.

    Raises:
        ConfigError: If it names none.
    """
    found = [getattr(config, field, None) for field in _FIELDS]
    ids = tuple(dict.fromkeys(int(value) for value in found if value is not None))
    if not ids:
        raise ConfigError(
            f"`per_token` must be false for a model whose config names no image token, but {type(config).__name__} "
            f"has none of {', '.join(_FIELDS)}. Adapt the towers of their own modality instead."
        )
    return ids


def token_modality(input_ids: Tensor, images: tuple[int, ...]) -> Tensor:
    """1 for tokens of images, 0 for text, int64, for ids of shape `(rows, length)`.

    Example:
        >>> token_modality(torch.tensor([[7, 9, 9, 8]]), (9,))
        tensor([[0, 1, 1, 0]])
    """
    return torch.isin(input_ids, torch.tensor(images, device=input_ids.device)).long()

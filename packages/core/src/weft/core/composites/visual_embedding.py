"""Visual tokens for a text encoder: the embedding of VL-T5, as VL-Adapter uses it."""

from __future__ import annotations

import math
from functools import reduce

import torch
from torch import Tensor, nn

from weft.core.errors import ConfigError


class VisualEmbedding(nn.Module):
    """Projects region or grid features into the embedding space of a language model.

    `v = norm(W_f f + b_f) + norm(W_p [box; area] + b_p) + E_image[image] + E_token[vocabulary - 1 - object]`

    The object order is looked up in the language model's own token table, from its end, and so has no
    parameters here. Grid features carry all-zero boxes: the box branch is then a learned constant.

    Args:
        feature_size: Width of the features.
        hidden_size: Width of the language model.
        num_images: Number of images one text may speak of.
        norm: Class of the two norms: `nn.LayerNorm` for BART, the model's own RMS norm for T5.
        norm_eps: Epsilon of the norms.

    Source: VL-T5 (Cho et al. 2021), section 3.1; VL-Adapter (Sung et al. 2022), section 3.
    """

    def __init__(
        self,
        feature_size: int,
        hidden_size: int,
        *,
        num_images: int = 2,
        norm: type[nn.Module] = nn.LayerNorm,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.feature_projection = nn.Linear(feature_size, hidden_size)
        self.feature_norm = norm(hidden_size, eps=norm_eps)
        self.box_projection = nn.Linear(5, hidden_size)
        self.box_norm = norm(hidden_size, eps=norm_eps)
        self.image_order = nn.Embedding(num_images, hidden_size)

    def forward(self, features: Tensor, token_embedding: nn.Embedding, boxes: Tensor | None = None) -> Tensor:
        """Visual tokens of each example, image after image, shape `(batch, images * objects, hidden_size)`.

        Args:
            features: Shape `(batch, images, objects, feature_size)`.
            token_embedding: The language model's token table.
            boxes: Corners `(x1, x2, y1, y2)` in 0..1, shape `(batch, images, objects, 4)`; None stands for zeros.

        Raises:
            ConfigError: If there are more images than order embeddings.
        """
        batch, images, objects, _ = features.shape
        if images > self.image_order.num_embeddings:
            raise ConfigError(
                f"`features` holds {images} images for one text, but the model was made for at most "
                f"{self.image_order.num_embeddings}. Set `num_images` in the model's config."
            )
        if boxes is None:
            boxes = features.new_zeros(batch, images, objects, 4)
        area = (boxes[..., 1] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 2])
        position = self.box_projection(torch.cat([boxes, area[..., None]], dim=-1).to(features.dtype))
        embedded = self.feature_norm(self.feature_projection(features)) + self.box_norm(position)
        # Row V-1-k of the table belongs to the token `<vis_extra_id_k>`.
        rows = token_embedding.num_embeddings - 1 - torch.arange(objects, device=features.device)
        order = self.image_order.weight[:images, None] + token_embedding(rows)[None]
        return (embedded + order.to(embedded.dtype)).flatten(1, 2)


def pool_grid(features: Tensor, num_tokens: int) -> Tensor:
    """Reduce a square grid of features by adaptive max pooling, to the shape `(..., num_tokens, width)`.

    Args:
        features: Shape `(..., tokens, width)`; `tokens` is a square number.
        num_tokens: Tokens wanted, a square number. Seven by seven to six by six is max pooling, kernel 2, stride 1.

    Raises:
        ConfigError: If either number of tokens is not a square.
    """
    tokens = features.shape[-2]
    if tokens == num_tokens:
        return features
    side, wanted = math.isqrt(tokens), math.isqrt(num_tokens)
    if side * side != tokens or wanted * wanted != num_tokens:
        raise ConfigError(
            f"`features` with {tokens} tokens cannot be pooled to `num_tokens` ({num_tokens}): both must be "
            "squares, because the features are a grid. Set `num_visual_tokens` to the number of features "
            "to take them as they are."
        )
    # The width stays the last axis: torch's pooling wants it in front, and moving it costs more than the maxima.
    grid = features.unflatten(-2, (side, side))
    for axis in (-3, -2):
        windows = [(i * side // wanted, -(-(i + 1) * side // wanted)) for i in range(wanted)]
        maxima = [reduce(torch.maximum, grid.narrow(axis, a, b - a).split(1, axis)) for a, b in windows]
        grid = torch.cat(maxima, dim=axis)
    return grid.flatten(-3, -2)

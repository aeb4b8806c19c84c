"""Comparing the rows of a batch: each text with every picture, and each picture with every text."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from weft.data import MediaRef
from weft.eval.readers.rows import Row


def identities(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Numbers of the text and of the pictures of rows, equal where rows show the same; see `Batch`."""
    shown = [tuple(_address(picture) for picture in row.pictures) for row in rows]
    return {"text": _numbered(row.text for row in rows), "image": _numbered(shown)}


def _address(picture: Any) -> Hashable:
    if isinstance(picture, MediaRef):
        return picture.place
    return hashlib.sha256(picture.tobytes()).hexdigest(), picture.size


def _numbered(values: Iterable[Hashable]) -> Tensor:
    digests = [hashlib.sha256(repr(value).encode()).digest()[:8] for value in values]
    return torch.tensor([int.from_bytes(digest, "big") >> 1 for digest in digests])


def alike(identities: Mapping[str, Tensor]) -> Tensor:
    """Which pairs of different rows show the same text or the same picture, shape `(rows, rows)`.

    Args:
        identities: `text` and `image` of `Batch.identities`.
    """
    text, image = identities["text"], identities["image"]
    same = (text[:, None] == text) | (image[:, None] == image)
    return same.fill_diagonal_(False)


def contrast(
    texts: Tensor,
    images: Tensor,
    scale: Tensor | float,
    bias: Tensor | None,
    identities: Mapping[str, Tensor],
) -> Tensor:
    """The loss of each row, shape `(rows,)`; rows that show the same are not negatives of one another.

    Args:
        texts: Features of texts, of length one, shape `(rows, size)`.
        images: Features of pictures, likewise.
        scale: Factor of their products.
        bias: What is added to them where pairs are judged one by one; None where each row chooses among all.
        identities: See `alike`.

    Source: CLIP (Radford et al. 2021), figure 3; SigLIP (Zhai et al. 2023), algorithm 1. The rule about equal rows is
        ours.
    """
    similarity = scale * (texts @ images.T) + (0.0 if bias is None else bias)
    same = alike(identities)
    if bias is not None:
        sign = 2 * torch.eye(len(texts), device=texts.device, dtype=texts.dtype) - 1
        return -functional.logsigmoid(sign * similarity).masked_fill(same, 0.0).sum(1)
    similarity = similarity.masked_fill(same, float("-inf"))
    own = torch.arange(len(texts), device=texts.device)
    to_image, to_text = (
        functional.cross_entropy(side, own, reduction="none") for side in (similarity, similarity.T)
    )
    return (to_image + to_text) / 2

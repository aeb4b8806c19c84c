"""Which row of a batch a picture, a tile or a patch belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

GRID = "_grid_thw"
PIXELS = "pixel_values"


def owners(
    pictures: Sequence[int],
    media: Mapping[str, Tensor],
    by_row: Collection[str] = (),
    tokens: Tensor | None = None,
) -> dict[str, Tensor]:
    """Owners of the pictures of a batch, and of what comes first in each tensor of them.

    Args:
        pictures: Number of pictures of each row.
        media: The tensors that the processor made of them.
        by_row: Names of tensors that have one entry for each row, however many pictures it shows. Equal numbers prove
            nothing: three rows may show three pictures of the first.
        tokens: Number of tokens of each row that stand for pieces of pictures, shape `(rows,)`, or None if unknown.

    Returns:
        `images`, the row of each picture in their order, shape `(pictures,)`; `tiles`, the row of each tile that the
        vision tower sees, in its order; and for tensors whose first dimension counts rows, pictures, tiles or packed
        patches, the row of each entry by the tensor's name. What does not follow is absent.
    """
    rows = torch.arange(len(pictures))
    of_pictures = rows.repeat_interleave(torch.tensor(list(pictures), dtype=torch.long))
    found = {"images": of_pictures}
    patches = [grid.prod(1) for name, grid in media.items() if name.endswith(GRID)]
    for name, value in media.items():
        packed = next(
            (own for own in patches if len(own) == len(of_pictures) and own.sum() == len(value)), None
        )
        tiles = None if patches or value.dim() != 4 else _tiles(len(value), tokens)
        if name in by_row:
            if len(value) == len(rows):
                found[name] = rows
        elif len(value) == len(of_pictures):
            found[name] = of_pictures
        elif packed is not None:
            found[name] = of_pictures.repeat_interleave(packed)
        elif tiles is not None:
            found[name] = rows.repeat_interleave(tiles)
    return found | _seen(found, media)


def _tiles(count: int, tokens: Tensor | None) -> Tensor | None:
    """Tiles of each row, where tiles of all rows follow one another: each is as many tokens as any other."""
    if tokens is None or int(tokens.sum()) % count:
        return None
    each = int(tokens.sum()) // count
    return None if each == 0 or bool((tokens % each).any()) else tokens // each


def _seen(found: Mapping[str, Tensor], media: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Owners of tiles: what is no padding of a tensor of tiles, else what comes first in a tensor of pixels."""
    pixels = media.get(PIXELS)
    if pixels is None or PIXELS not in found or pixels.dim() not in (4, 5):
        return {}
    if pixels.dim() == 4:
        return {"tiles": found[PIXELS]}
    shown = pixels.flatten(2).any(2).sum(1)
    return {"tiles": found[PIXELS].repeat_interleave(shown)}

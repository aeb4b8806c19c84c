"""Which row of a batch a picture, a tile or a patch belongs to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

GRID = "_grid_thw"


def owners(
    pictures: Sequence[int], media: Mapping[str, Tensor], by_row: Collection[str] = ()
) -> dict[str, Tensor]:
    """Owners of the pictures of a batch, and of what stands first in each tensor of them.

    Args:
        pictures: Number of pictures of each row.
        media: The tensors that the processor made of them.
        by_row: Names of tensors that have one entry for each row, however many pictures it shows. Equal numbers prove
            nothing: three rows may show three pictures of the first.

    Returns:
        `images`, the row of each picture in their order, shape `(pictures,)`; and for tensors whose first dimension
        counts rows, pictures or packed patches, the row of each entry by the tensor's name. A tensor for which it
        does not follow has none.
    """
    rows = torch.arange(len(pictures))
    of_pictures = rows.repeat_interleave(torch.tensor(list(pictures), dtype=torch.long))
    found = {"images": of_pictures}
    patches = [grid.prod(1) for name, grid in media.items() if name.endswith(GRID)]
    for name, value in media.items():
        packed = next(
            (own for own in patches if len(own) == len(of_pictures) and own.sum() == len(value)), None
        )
        if name in by_row:
            if len(value) == len(rows):
                found[name] = rows
        elif len(value) == len(of_pictures):
            found[name] = of_pictures
        elif packed is not None:
            found[name] = of_pictures.repeat_interleave(packed)
    return found

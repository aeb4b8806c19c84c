"""Owners: the row of the batch that each image, tile or packed token belongs to.

A vision tower sees the images of all rows at once, as many as there are: equal numbers of images and rows
prove nothing. Whose they are follows from the placeholders in the rows' tokens, since models put the features
of the images where those are, in order. A family names the rule that fits its models.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from weft.core.errors import RoutingError

IMAGE_TOKENS = ("image_token_id", "image_token_index")
VIDEO_TOKENS = ("video_token_id", "video_token_index")
_KINDS = (("image", "pixel_values", IMAGE_TOKENS), ("video", "pixel_values_videos", VIDEO_TOKENS))


class Media(ABC):
    """Images or videos of one call of a tower.

    `counts` are the placeholders in each row of the batch, int64, shape `(batch,)`.
    """

    counts: Tensor

    @abstractmethod
    def fits(self, rows: int) -> bool:
        """Whether a tower that holds these media may have so many rows."""

    @abstractmethod
    def medium(self, rows: int) -> Tensor:
        """Which medium each row of a tower belongs to, int64, shape `(rows,)`."""

    @abstractmethod
    def placeholders(self, rows: int) -> Tensor:
        """Placeholders that each medium has, int64, shape `(media,)`."""

    def owner(self, rows: int) -> Tensor:
        """Row of the batch that each row of a tower belongs to, int64, shape `(rows,)`.

        Raises:
            RoutingError: If the placeholders do not add up to the media, or a medium spans two rows; on
                other devices than the CPU and under a compiler torch's own error, without waiting for the
                device.
        """
        ends = self.counts.cumsum(0)
        sizes = self.placeholders(rows)
        last = sizes.cumsum(0)
        first = last - sizes
        owner = torch.searchsorted(ends, first, right=True).clamp(max=ends.shape[0] - 1)
        within = (ends[owner] >= last).all() & (last[-1] == ends[-1]) & (sizes > 0).all()
        _hold(
            within,
            "the placeholders of each row must be those of whole images, but they are not. Check the number "
            "of images of each row, or say whose they are with `owners=`.",
        )
        return owner.index_select(0, self.medium(rows))


@dataclass(eq=False)
class EqualMedia(Media):
    """Media of which all have the same number of placeholders.

    There are `media` of them; None stands for one in each row of the tower, such as a tile.
    """

    counts: Tensor
    media: int | None = None

    def fits(self, rows: int) -> bool:
        """Whether the rows are equally many for each medium."""
        return rows > 0 and (self.media is None or (self.media > 0 and rows % self.media == 0))

    def medium(self, rows: int) -> Tensor:
        """Which medium each row of a tower belongs to."""
        media = self.media or rows
        index = torch.arange(media, device=self.counts.device)
        return index[:, None].expand(media, rows // media).reshape(rows)

    def placeholders(self, rows: int) -> Tensor:
        """Placeholders that each medium has."""
        media = self.media or rows
        total = self.counts.sum()
        _hold(
            total % media == 0,
            f"the placeholders of a batch must be equally many for each of its {media} images, but they are "
            "not. Check the number of images of each row, or say whose they are with `owners=`.",
        )
        return (total // media).expand(media)


@dataclass(eq=False)
class SizedMedia(Media):
    """Media with a number of placeholders and of the tower's rows each.

    Args:
        counts: Placeholders in each row of the batch, int64, shape `(batch,)`.
        sizes: Placeholders of each medium, int64, shape `(media,)`.
        tower_rows: Rows of the tower that each medium has (tiles, or packed patches), int64, shape `(media,)`.
        total: Sum of `tower_rows`.
    """

    counts: Tensor
    sizes: Tensor
    tower_rows: Tensor
    total: int

    def fits(self, rows: int) -> bool:
        """Whether they are the tower's rows, or equal groups of them, as after merging patches."""
        return rows > 0 and self.total % rows == 0

    def medium(self, rows: int) -> Tensor:
        """Which medium each row of a tower belongs to."""
        group = self.total // rows
        _hold(
            (self.tower_rows % group == 0).all(),
            f"each image must have a multiple of {group} of the tower's {self.total} rows, of which a site "
            f"sees {rows}, but not all have. Say whose the rows are with `owners=`.",
        )
        index = torch.arange(self.sizes.shape[0], device=self.sizes.device)
        return index.repeat_interleave(self.tower_rows // group, output_size=rows)

    def placeholders(self, rows: int) -> Tensor:
        """Placeholders that each medium has."""
        return self.sizes


OwnersRule = Callable[[Any, Mapping[str, Any]], Sequence[Media]]
"""What finds the media of a call: it gets the model, whose config names the placeholders, and what its `forward` got,
by name."""


def media_of(owned: Sequence[Media], rows: int, address: str) -> Media:
    """The media that a tower's rows are of, among the images and videos that the batch holds.

    Raises:
        RoutingError: If none fits, or several do.
    """
    fitting = [media for media in owned if media.fits(rows)]
    exact = [media for media in fitting if isinstance(media, SizedMedia) and media.total == rows]
    if len(fitting) > 1 and exact:
        fitting = list[Media](exact)
    if len(fitting) == 1:
        return fitting[0]
    fault = "images and videos are equally many there" if fitting else "no image of the batch has such"
    raise RoutingError(
        f"`owners` must be given for the {rows} rows of {address}, because whose they are does not follow from "
        f"the batch: {fault}. Write `route(tasks=..., owners={{'vision': [row of the batch, ...]}})`, or give "
        "one task for all rows."
    )


def equal_media(model: Any, inputs: Mapping[str, Any]) -> list[Media]:
    """The rule of models that give each image, tile or frame the same number of placeholders."""
    found: list[Media] = []
    for kind, name, fields in _KINDS:
        pixels, counts = inputs.get(name), placeholders(model, inputs, fields)
        if pixels is not None and counts is not None:
            # Images in rows, `(batch, images, ...)`, leave padding out of the tower: its rows are the media.
            by_row = kind == "image" and pixels.dim() > 4
            found.append(EqualMedia(counts, None if by_row else pixels.shape[0]))
    return found


def media_by_grid(model: Any, inputs: Mapping[str, Any]) -> list[Media]:
    """The rule of models that pack the patches of all media into one sequence, with a grid of each.

    It reads `image_grid_thw` and `video_grid_thw`, shape `(media, 3)`.
    """
    merged = model.config.vision_config.spatial_merge_size**2
    found: list[Media] = []
    for kind, name, fields in _KINDS:
        pixels, grid = inputs.get(name), inputs.get(f"{kind}_grid_thw")
        counts = placeholders(model, inputs, fields)
        if pixels is not None and grid is not None and counts is not None:
            patches = grid.to(counts.device).prod(dim=-1)
            found.append(SizedMedia(counts, patches // merged, patches, pixels.shape[0]))
    return found


def media_by_tiles(model: Any, inputs: Mapping[str, Any]) -> list[Media]:
    """The rule of LLaVA: images of equal size in 1.5, of as many tiles as their shape asks for in later ones.

    These have `image_sizes`, shape `(images, 2)`. How many features an image keeps is asked of the model's own packing,
    on tensors without values.
    """
    holder: Any = getattr(model, "model", model)
    sizes, pixels = inputs.get("image_sizes"), inputs.get("pixel_values")
    if not hasattr(holder, "pack_image_features") or sizes is None or pixels is None:
        return equal_media(model, inputs)
    videos = equal_media(model, {**inputs, "pixel_values": None})
    counts = placeholders(model, inputs, IMAGE_TOKENS)
    if counts is None:
        return videos
    config, vision = model.config, model.config.vision_config
    tiles_of = importlib.import_module(
        next(
            cls.__module__ for cls in type(holder).__mro__ if cls.__module__.startswith("transformers.models")
        )
    ).image_size_to_num_patches
    alone = inputs.get("batch_num_images")
    tiled = [True] * len(sizes) if alone is None else [n == 1 for n in map(int, alone) for _ in range(n)]
    tiles = [
        int(tiles_of(size, config.image_grid_pinpoints, vision.image_size)) if several else 1
        for size, several in zip(sizes, tiled, strict=True)
    ]
    patches = (vision.image_size // vision.patch_size) ** 2
    features = [torch.empty(count, patches, 1, device="meta") for count in tiles]
    named: dict[str, Any] = {"image_newline": torch.empty(1, device="meta")}
    if hasattr(config, "vision_aspect_ratio"):
        named["vision_aspect_ratio"] = inputs.get("vision_aspect_ratio") or config.vision_aspect_ratio
    else:
        named["vision_feature_select_strategy"] = config.vision_feature_select_strategy
    packed, _ = holder.pack_image_features(features, sizes, **named)
    lengths = torch.tensor([feature.shape[0] for feature in packed], device=counts.device)
    return [SizedMedia(counts, lengths, torch.tensor(tiles, device=counts.device), sum(tiles)), *videos]


def placeholders(model: Any, inputs: Mapping[str, Any], fields: Sequence[str]) -> Tensor | None:
    """Placeholders in each row of the batch, int64, shape `(batch,)`; None without tokens to count.

    The config gives the token under the first of `fields` that it has.
    """
    ids = inputs.get("input_ids")
    token = next((value for name in fields if (value := getattr(model.config, name, None)) is not None), None)
    return None if ids is None or token is None else (ids == token).sum(dim=-1)


def _hold(condition: Tensor, message: str) -> None:
    """Check without making the host wait for a device."""
    if condition.device.type == "cpu" and not torch.compiler.is_compiling():
        if not bool(condition):
            raise RoutingError(message[0].upper() + message[1:])
    else:
        torch._assert_async(condition, message)

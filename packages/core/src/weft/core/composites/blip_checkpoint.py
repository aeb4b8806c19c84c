"""The original `.pth` files of BLIP, read into the classes of `transformers`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.core.composites.original_files import read_original, renamed
from weft.core.errors import CheckpointError
from weft.core.files.stored_files import check_tensors

_RENAMED = (
    (r"^visual_encoder\.cls_token$", "vision_model.embeddings.class_embedding"),
    (r"^visual_encoder\.pos_embed$", "vision_model.embeddings.position_embedding"),
    (r"^visual_encoder\.patch_embed\.proj\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual_encoder\.norm\.", "vision_model.post_layernorm."),
    (r"^visual_encoder\.blocks\.(\d+)\.norm([12])\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^visual_encoder\.blocks\.(\d+)\.attn\.qkv\.", r"vision_model.encoder.layers.\1.self_attn.qkv."),
    (
        r"^visual_encoder\.blocks\.(\d+)\.attn\.proj\.",
        r"vision_model.encoder.layers.\1.self_attn.projection.",
    ),
    (r"^visual_encoder\.blocks\.(\d+)\.mlp\.fc([12])\.", r"vision_model.encoder.layers.\1.mlp.fc\2."),
)
# A second model that follows the first, its queues, and a table that counts positions.
_DROPPED = re.compile(r"(^|\.)[a-z_]+_m(\.|$)|^(image|text|idx|ptr)_queue$|\.position_ids$")
_POSITIONS = "vision_model.embeddings.position_embedding"


def convert_blip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of an original BLIP model as the three BLIPs of transformers call them.

    `temp` keeps its name. The momentum encoders and the queues are left out.
    """
    return {renamed(name, _RENAMED): value for name, value in state.items() if not _DROPPED.search(name)}


def load_blip(model: nn.Module, source: str | Path | Mapping[str, Tensor]) -> tuple[str, ...]:
    """Load an original BLIP checkpoint into a model, in place, and return the names that the model has no place for.

    A file for another task may be given, as when question answering starts from the pretrained-only file: heads and
    towers that the model lacks are left out. The grid of positions is resized to the model's image size, as the
    original does (bicubic, the class token's position kept).

    Args:
        model: `BlipForImageTextRetrieval`, `BlipForQuestionAnswering` or `BlipForConditionalGeneration`, plain or one
            of weft's.
        source: A `.pth` file, which is read without running any code in it, or the state it holds.

    Raises:
        CheckpointError: If the file is none of BLIP, or lacks or mis-shapes a tensor of the model. Nothing is loaded
            then.
    """
    state = source if isinstance(source, Mapping) else _read(Path(source))
    _check_state(state, source)
    converted = convert_blip(state)
    own = model.state_dict()
    if _POSITIONS in converted and _POSITIONS in own and _is_grid(converted[_POSITIONS]):
        converted[_POSITIONS] = resized_positions(converted[_POSITIONS], own[_POSITIONS].shape[1])
    unused = tuple(name for name in converted if name not in own)
    missing = [name for name in own if name not in converted and name != "temp"]
    shapes = [
        f"{name} is {tuple(converted[name].shape)} and should be {tuple(value.shape)}"
        for name, value in own.items()
        if name in converted and converted[name].shape != value.shape
    ]
    if missing or shapes:
        found = [f"lacks {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}"] if missing else []
        raise CheckpointError(
            f"`source` must hold a BLIP model that fits {type(model).__name__}, but {'; '.join(found + shapes[:5])}. "
            "Take the file of this task or the pretrained-only one, and the config of its size."
        )
    model.load_state_dict({name: converted[name] for name in own if name in converted}, strict=False)
    return unused


def _is_grid(positions: Tensor) -> bool:
    """Whether there is one class token and a square of patches; otherwise the shape is given as it is."""
    return (
        positions.dim() == 3
        and positions.shape[1] > 1
        and math.isqrt(positions.shape[1] - 1) ** 2 == positions.shape[1] - 1
    )


def resized_positions(positions: Tensor, tokens: int) -> Tensor:
    """Positions `(1, old tokens, width)` of a class token and a square grid, resized to `tokens`, a square and one."""
    if positions.shape[1] == tokens:
        return positions
    old, new = round((positions.shape[1] - 1) ** 0.5), round((tokens - 1) ** 0.5)
    grid = positions[:, 1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)


def _read(path: Path) -> Mapping[str, Tensor]:
    advice = "Download it again, or take one of the files that BLIP's README lists."
    values = read_original(path, "a BLIP checkpoint", advice)
    state = values.get("model", values) if isinstance(values, Mapping) else None
    if not isinstance(state, Mapping) or not any(str(name).startswith("visual_encoder.") for name in state):
        raise CheckpointError(
            f"`source` must hold BLIP's `visual_encoder`, but {path} holds none. Take one of the files that BLIP's "
            "README lists."
        )
    return state


def _check_state(state: Mapping[str, Tensor], source: object) -> None:
    """Refuse names that are none, and tensors that no training leaves."""
    shown = Path("the given state") if isinstance(source, Mapping) else Path(str(source))
    if odd := [name for name in state if not isinstance(name, str)]:
        raise CheckpointError(
            f"`source` must hold tensors by their names, but {shown} has the name {odd[0]!r}. Take one of the "
            "files that BLIP's README lists."
        )
    kept = ((name, value) for name, value in state.items() if not _DROPPED.search(name))
    check_tensors(kept, {}, shown, argument="source")

"""The original `.pth` files of EfficientNet-Lite, read into `EfficientNetModel` of `transformers`.

Lite is EfficientNet without gates between the channels, with ReLU6, and with the stem and the head of B0 at every size.
A gate whose bias is 30 is the identity: its sigmoid is 1 in float32 and in every narrower dtype. The feature maps are
therefore those of the original, bit for bit.

Source: the TPU repository of EfficientNet-Lite, and the PyTorch port whose files carry these names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import EfficientNetConfig, EfficientNetModel

from weft.core.composites.original_files import read_original, renamed
from weft.core.errors import CheckpointError

IMAGE_SIZES = (224, 240, 260)
"""Side of the square images of Lite 0, 1 and 2, in pixels."""

IMAGE_MEAN, IMAGE_STD = 127 / 255, 128 / 255
"""Lite reads (x - 127) / 128, for x from 0 to 255."""

_OPEN_GATE = 30.0
_REPEATS = ((1, 2, 2, 3, 3, 4, 1), (1, 3, 3, 4, 4, 5, 1), (1, 3, 3, 4, 4, 5, 1))
_STRIDES = (1, 2, 2, 2, 1, 2, 1)
_STEM_WIDTH, _WIDTH = 32, 1280
_RENAMED = (
    (r"^_conv_stem\.", "embeddings.convolution."),
    (r"^_bn0\.", "embeddings.batchnorm."),
    (r"^_conv_head\.", "encoder.top_conv."),
    (r"^_bn1\.", "encoder.top_bn."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"encoder.blocks.\1.expansion.expand_conv."),
    (r"^_blocks\.(\d+)\._bn0\.", r"encoder.blocks.\1.expansion.expand_bn."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"encoder.blocks.\1.depthwise_conv.depthwise_conv."),
    (r"^_blocks\.(\d+)\._bn1\.", r"encoder.blocks.\1.depthwise_conv.depthwise_norm."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"encoder.blocks.\1.projection.project_conv."),
    (r"^_blocks\.(\d+)\._bn2\.", r"encoder.blocks.\1.projection.project_bn."),
)


def load_efficientnet_lite(
    source: str | Path | Mapping[str, Tensor], size: int
) -> tuple[EfficientNetModel, Tensor]:
    """Read an EfficientNet-Lite.

    Args:
        source: A `.pth` file, which is read without running any code in it, or the state it holds.
        size: 0, 1 or 2, for Lite 0 to Lite 2.

    Returns:
        The tower in evaluation mode, whose last feature map is that of the original; and the weight of its classifier,
        shape `(classes, 1280)`, one vector for each class in the space of the map's mean.

    Raises:
        CheckpointError: If `size` is another one, or the file is none of that size.
    """
    if size not in range(len(IMAGE_SIZES)):
        raise CheckpointError(f"`size` must be 0, 1 or 2, but is {size}. Larger ones are not read.")
    state = source if isinstance(source, Mapping) else _read(Path(source))
    found = {renamed(name, _RENAMED): value for name, value in state.items() if not name.startswith("_fc.")}
    classifier = state.get("_fc.weight")
    if classifier is None or classifier.shape[1:] != (_WIDTH,):
        raise _misfit(size, "it has no classifier over 1,280 features")
    model = EfficientNetModel(_config(found, size)).eval()
    own = model.state_dict()
    gates = {
        name: torch.full_like(value, _OPEN_GATE if name.endswith(".expand.bias") else 0.0)
        for name, value in own.items()
        if ".squeeze_excite." in name
    }
    missing = sorted(own.keys() - found.keys() - gates.keys())
    unknown = sorted(found.keys() - own.keys())
    shapes = [name for name in own if name in found and found[name].shape != own[name].shape]
    if missing or unknown or shapes:
        raise _misfit(size, f"{(missing + unknown + shapes)[0]} is missing, unknown or of another shape")
    model.load_state_dict({**gates, **found})
    return model, classifier


def _config(state: Mapping[str, Tensor], size: int) -> EfficientNetConfig:
    """The architecture of a size, whose widths are read from the tensors."""
    repeats = _REPEATS[size]
    firsts = [sum(repeats[:stage]) for stage in range(len(repeats))]
    try:
        widths = [
            state[f"encoder.blocks.{first}.projection.project_conv.weight"].shape[0] for first in firsts
        ]
    except KeyError as error:
        raise _misfit(size, f"{error.args[0]} is missing") from None
    return EfficientNetConfig(
        image_size=IMAGE_SIZES[size],
        width_coefficient=1.0,
        depth_coefficient=1.0,
        in_channels=[_STEM_WIDTH, *widths[:-1]],
        out_channels=widths,
        num_block_repeats=list(repeats),
        depthwise_padding=_odd_maps(size),
        hidden_act="relu6",
        hidden_dim=_WIDTH,
        squeeze_expansion_ratio=0.01,  # the narrowest gates there are, since they do nothing
        dropout_rate=0.0,
        drop_connect_rate=0.0,
    )


def _odd_maps(size: int) -> list[int]:
    """Blocks that halve a map of odd side, which TensorFlow pads on both sides alike."""
    side, block, odd = math.ceil(IMAGE_SIZES[size] / 2), 0, []
    for repeats, stride in zip(_REPEATS[size], _STRIDES, strict=True):
        if stride == 2:
            if side % 2:
                odd.append(block)
            side = math.ceil(side / 2)
        block += repeats
    return odd


def _read(path: Path) -> Mapping[str, Tensor]:
    state = read_original(path, "a file", "Install its package again.")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(
            f"`source` must hold tensors by their names, but {path} does not. Take a file of EfficientNet-Lite."
        )
    return state


def _misfit(size: int, fault: str) -> CheckpointError:
    return CheckpointError(
        f"`source` must hold EfficientNet-Lite {size}, but {fault}. Take the file of that size, or another `size`."
    )

"""EfficientNet: each inverted-residual block is a layer, whose 1×1 convolutions are linear maps over the channels.

Units act on the output of a block's last norm, and on the maps into (`up`) and out of (`down`) the wide middle. A block
that changes the number of channels or the size of the map, as the first of each stage does, has no residual stream:
units that read one are refused there. Depthwise convolutions, the gates between the channels and the stem mix places or
see none, and hold no site.

Source: Tan and Le 2019, and transformers' `EfficientNetModel`.
"""

from collections.abc import Mapping

from torch import nn

from weft.core.backbone.family import BlockSpec, Family, Outside, Stack, register_family
from weft.core.backbone.sites import Block


def blocks_of(layer: nn.Module) -> Mapping[Block, BlockSpec]:
    """The one sub-layer of a block; its residual stream is declared where there is one."""
    # What transformers asks before it adds the input.
    has_stream = layer.projection.apply_dropout  # type: ignore[union-attr]
    return {
        "ffn": BlockSpec(
            output="projection.project_bn",
            source=("expansion", "depthwise_conv"),
            before="" if has_stream else None,
            behind="" if has_stream else None,
            width="projection.project_conv",
            linears={"up": "expansion.expand_conv", "down": "projection.project_conv"},
            entry=("expansion.expand_conv", "depthwise_conv.depthwise_conv"),
        )
    }


FAMILY = register_family(
    Family(
        name="efficientnet",
        model_types={"efficientnet": ("vision",)},
        stacks=(
            Stack(
                tower="vision",
                layers=("efficientnet.encoder.blocks", "encoder.blocks"),
                blocks=blocks_of,
                modality="vision",
            ),
        ),
        towers={"vision": ("efficientnet", "")},
        outside=(Outside("classifier", "vision"),),
        components={"embeddings": ("efficientnet.embeddings", "embeddings"), "head": "classifier"},
    )
)

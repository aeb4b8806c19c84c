"""CLIP as open_clip builds it: its attention is torch's own, which calls none of the maps inside it.

The site of an attention is therefore the scale after it (an identity, where a model has none), and only the
feed-forward block has maps that can be chosen by role. Its models have no config; they are known by their class.
A vision tower of convolutions, such as that of RN50, or of timm has other sub-layers and holds no site; the text tower
is adapted all the same. Text towers of transformers within open_clip are refused.
"""

from weft.core.backbone.declaring import feed_forward
from weft.core.backbone.family import BlockSpec, Family, Stack, register_family
from weft.core.backbone.sites import Block

BLOCKS: dict[Block, BlockSpec] = {
    "attention": BlockSpec(output="ls_1", source="attn", before="ln_1", width="attn.out_proj"),
    "ffn": feed_forward("mlp", up="c_fc", down="c_proj", output="ls_2", before="ln_2", behind=""),
}

FAMILY = register_family(
    Family(
        name="open_clip",
        model_types={
            "open_clip.model.CLIP": ("text", "vision"),
            "open_clip.model.CustomTextCLIP": ("text", "vision"),
        },
        stacks=(
            Stack(
                tower="text", layers=("transformer.resblocks", "text.transformer.resblocks"), blocks=BLOCKS
            ),
            Stack(tower="vision", layers="visual.transformer.resblocks", blocks=BLOCKS, modality="vision"),
        ),
        towers={
            "text": ("text", "transformer", "token_embedding", "positional_embedding", "ln_final"),
            "vision": "visual",
        },
        components={
            "text": ("text", "transformer"),
            "vision": "visual",
            "projector": ("text_projection", "text.text_projection", "visual.proj"),
            "logit_scale": ("logit_scale", "logit_bias"),
        },
        optional_towers=("vision",),
    )
)

"""Vision-language models of which only the owners of their images are declared; all else is read by their structure.

Each tile of an image has equally many placeholders in the first ones; in the others, grids say how many an image has.
"""

from weft.core.backbone.family import Family, register_family
from weft.core.backbone.owners import equal_media, media_by_grid

EQUAL = register_family(
    Family(
        name="structure",
        model_types={
            "aya_vision": ("text",),
            "cohere2_vision": ("text",),
            "deepseek_vl": ("text",),
            "internvl": ("text",),
            "janus": ("text",),
            "ovis2": ("text",),
            "qianfan_ocr": ("text",),
            "vipllava": ("text",),
        },
        owners=equal_media,
        by_structure=True,
    )
)
GRIDS = register_family(
    Family(
        name="structure",
        model_types={
            "cosmos3_omni": ("text",),
            "exaone4_5": ("text",),
            "glm46v": ("text",),
            "glm4v": ("text",),
            "glm4v_moe": ("text",),
            "glm_ocr": ("text",),
            "glmga": ("text",),
            "hyperclovax_vision_v2": ("text",),
        },
        owners=media_by_grid,
        by_structure=True,
    )
)

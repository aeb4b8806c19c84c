"""Vision-language models of which only the owners of their images are declared; all else is read by their structure.

Each tile of an image has equally many placeholders in the first ones; in the others, grids say how many an image has.
"""

from weft.core.backbone.family import Family, register_family
from weft.core.backbone.owners import OwnersRule, equal_media, media_by_grid


def _owned(model_types: str, owners: OwnersRule) -> Family:
    types = dict.fromkeys(model_types.split(), ("text",))
    return register_family(Family(name="structure", model_types=types, owners=owners, by_structure=True))


EQUAL = _owned("aya_vision cohere2_vision deepseek_vl internvl janus ovis2 qianfan_ocr vipllava", equal_media)
GRIDS = _owned(
    "cosmos3_omni exaone4_5 glm46v glm4v glm4v_moe glm_ocr glmga hyperclovax_vision_v2", media_by_grid
)

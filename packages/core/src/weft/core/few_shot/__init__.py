"""Few-shot heads on a dual encoder: caches of image and text features, and the family around them.

```python
from weft.core.few_shot import TipAdapter

head = TipAdapter(class_weights).fit(features, labels, validation=(more_features, more_labels))
head.logits(queries)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.registry import lazy_names

if TYPE_CHECKING:
    from weft.core.few_shot.adaptable import AdaptableEncoder
    from weft.core.few_shot.adapted_head import AdaptedHead, AdaptedHeadConfig
    from weft.core.few_shot.encoder import ImageTextEncoder
    from weft.core.few_shot.files import Provenance
    from weft.core.few_shot.head import FewShotHead, load_head, make_head, save_head
    from weft.core.few_shot.head_config import HeadConfig, heads, parse_head, register_head
    from weft.core.few_shot.image_head import ImageHead
    from weft.core.few_shot.images import Images
    from weft.core.few_shot.methods.ape import APE, APEConfig
    from weft.core.few_shot.methods.ape_t import APET, APETConfig
    from weft.core.few_shot.methods.clap import CLAP, CLAPConfig
    from weft.core.few_shot.methods.clip_adapter import CLIPAdapter, CLIPAdapterConfig
    from weft.core.few_shot.methods.clip_lora import CLIPLoRA, CLIPLoRAConfig
    from weft.core.few_shot.methods.cocoop import CoCoOp, CoCoOpConfig
    from weft.core.few_shot.methods.coop import CoOp, CoOpConfig
    from weft.core.few_shot.methods.cross_modal_probe import CrossModalProbe, CrossModalProbeConfig
    from weft.core.few_shot.methods.gda import GDA, GDAConfig
    from weft.core.few_shot.methods.linear_probe import LinearProbe, LinearProbeConfig
    from weft.core.few_shot.methods.lp_plus_plus import LPPlusPlus, LPPlusPlusConfig
    from weft.core.few_shot.methods.mma import MMAHead, MMAHeadConfig
    from weft.core.few_shot.methods.mmrl import MMRL, MMRLConfig
    from weft.core.few_shot.methods.multi_modal_adapter import MultiModalAdapter, MultiModalAdapterConfig
    from weft.core.few_shot.methods.prolip import ProLIP, ProLIPConfig
    from weft.core.few_shot.methods.task_res import TaskRes, TaskResConfig
    from weft.core.few_shot.methods.tip_adapter import TipAdapter, TipAdapterConfig
    from weft.core.few_shot.methods.tip_adapter_f import TipAdapterF, TipAdapterFConfig
    from weft.core.few_shot.methods.two_sfs import TwoSFS, TwoSFSConfig
    from weft.core.few_shot.methods.uniadapter import UniAdapterHead, UniAdapterHeadConfig
    from weft.core.few_shot.methods.xmadapter import XMAdapter, XMAdapterConfig
    from weft.core.few_shot.methods.zero_shot import ZeroShotConfig, ZeroShotHead
    from weft.core.few_shot.prompts import ContextPrompts

__all__ = [
    "APE",
    "APET",
    "CLAP",
    "GDA",
    "MMRL",
    "APEConfig",
    "APETConfig",
    "AdaptableEncoder",
    "AdaptedHead",
    "AdaptedHeadConfig",
    "CLAPConfig",
    "CLIPAdapter",
    "CLIPAdapterConfig",
    "CLIPLoRA",
    "CLIPLoRAConfig",
    "CoCoOp",
    "CoCoOpConfig",
    "CoOp",
    "CoOpConfig",
    "ContextPrompts",
    "CrossModalProbe",
    "CrossModalProbeConfig",
    "FewShotHead",
    "GDAConfig",
    "HeadConfig",
    "ImageHead",
    "ImageTextEncoder",
    "Images",
    "LPPlusPlus",
    "LPPlusPlusConfig",
    "LinearProbe",
    "LinearProbeConfig",
    "MMAHead",
    "MMAHeadConfig",
    "MMRLConfig",
    "MultiModalAdapter",
    "MultiModalAdapterConfig",
    "ProLIP",
    "ProLIPConfig",
    "Provenance",
    "TaskRes",
    "TaskResConfig",
    "TipAdapter",
    "TipAdapterConfig",
    "TipAdapterF",
    "TipAdapterFConfig",
    "TwoSFS",
    "TwoSFSConfig",
    "UniAdapterHead",
    "UniAdapterHeadConfig",
    "XMAdapter",
    "XMAdapterConfig",
    "ZeroShotConfig",
    "ZeroShotHead",
    "heads",
    "load_head",
    "make_head",
    "parse_head",
    "register_head",
    "save_head",
]

__getattr__, __dir__ = lazy_names(__name__)

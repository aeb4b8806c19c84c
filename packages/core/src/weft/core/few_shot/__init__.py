"""Few-shot heads on a frozen dual encoder: caches of image and text features, and the family around them.

```python
from weft.core.few_shot import TipAdapter

head = TipAdapter(class_weights).fit(features, labels, validation=(more_features, more_labels))
head.logits(queries)
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.core.few_shot.encoder import ImageTextEncoder
    from weft.core.few_shot.files import Provenance, load_head, save_head
    from weft.core.few_shot.methods.ape import APE, APEConfig
    from weft.core.few_shot.methods.ape_t import APET, APETConfig
    from weft.core.few_shot.methods.clip_adapter import CLIPAdapter, CLIPAdapterConfig
    from weft.core.few_shot.methods.cocoop import CoCoOp, CoCoOpConfig
    from weft.core.few_shot.methods.coop import CoOp, CoOpConfig
    from weft.core.few_shot.methods.cross_modal_probe import CrossModalProbe, CrossModalProbeConfig
    from weft.core.few_shot.methods.gda import GDA, GDAConfig
    from weft.core.few_shot.methods.linear_probe import LinearProbe, LinearProbeConfig
    from weft.core.few_shot.methods.lp_plus_plus import LPPlusPlus, LPPlusPlusConfig
    from weft.core.few_shot.methods.task_res import TaskRes, TaskResConfig
    from weft.core.few_shot.methods.tip_adapter import TipAdapter, TipAdapterConfig
    from weft.core.few_shot.methods.tip_adapter_f import TipAdapterF, TipAdapterFConfig
    from weft.core.few_shot.methods.xmadapter import XMAdapter, XMAdapterConfig
    from weft.core.few_shot.methods.zero_shot import ZeroShotConfig, ZeroShotHead
    from weft.core.few_shot.model import FewShotHead, HeadConfig, heads, make_head, parse_head, register_head
    from weft.core.few_shot.prompts import ContextPrompts

_HOMES = {
    "APE": "methods.ape",
    "APEConfig": "methods.ape",
    "APET": "methods.ape_t",
    "APETConfig": "methods.ape_t",
    "CLIPAdapter": "methods.clip_adapter",
    "CLIPAdapterConfig": "methods.clip_adapter",
    "CoCoOp": "methods.cocoop",
    "CoCoOpConfig": "methods.cocoop",
    "ContextPrompts": "prompts",
    "CoOp": "methods.coop",
    "CoOpConfig": "methods.coop",
    "CrossModalProbe": "methods.cross_modal_probe",
    "CrossModalProbeConfig": "methods.cross_modal_probe",
    "FewShotHead": "model",
    "GDA": "methods.gda",
    "GDAConfig": "methods.gda",
    "HeadConfig": "model",
    "heads": "model",
    "ImageTextEncoder": "encoder",
    "LinearProbe": "methods.linear_probe",
    "LinearProbeConfig": "methods.linear_probe",
    "load_head": "files",
    "LPPlusPlus": "methods.lp_plus_plus",
    "LPPlusPlusConfig": "methods.lp_plus_plus",
    "make_head": "model",
    "parse_head": "model",
    "Provenance": "files",
    "register_head": "model",
    "save_head": "files",
    "TaskRes": "methods.task_res",
    "TaskResConfig": "methods.task_res",
    "TipAdapter": "methods.tip_adapter",
    "TipAdapterConfig": "methods.tip_adapter",
    "TipAdapterF": "methods.tip_adapter_f",
    "TipAdapterFConfig": "methods.tip_adapter_f",
    "XMAdapter": "methods.xmadapter",
    "XMAdapterConfig": "methods.xmadapter",
    "ZeroShotConfig": "methods.zero_shot",
    "ZeroShotHead": "methods.zero_shot",
}

__all__ = [
    "APE",
    "APET",
    "GDA",
    "APEConfig",
    "APETConfig",
    "CLIPAdapter",
    "CLIPAdapterConfig",
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
    "ImageTextEncoder",
    "LPPlusPlus",
    "LPPlusPlusConfig",
    "LinearProbe",
    "LinearProbeConfig",
    "Provenance",
    "TaskRes",
    "TaskResConfig",
    "TipAdapter",
    "TipAdapterConfig",
    "TipAdapterF",
    "TipAdapterFConfig",
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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

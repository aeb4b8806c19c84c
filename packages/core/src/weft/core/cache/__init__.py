"""Few-shot heads on a frozen dual encoder: caches of image and text features, and the family around them.

```python
from weft.core.cache import TipAdapter

head = TipAdapter(class_weights).fit(features, labels, validation=(more_features, more_labels))
head.logits(queries)
```
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.core.cache.files import Provenance, load_head, save_head
    from weft.core.cache.methods.tip_adapter import TipAdapter, TipAdapterConfig
    from weft.core.cache.methods.tip_adapter_f import TipAdapterF, TipAdapterFConfig
    from weft.core.cache.methods.zero_shot import ZeroShotConfig, ZeroShotHead
    from weft.core.cache.model import FewShotHead, HeadConfig, heads, make_head, parse_head, register_head

_HOMES = {
    "FewShotHead": "model",
    "HeadConfig": "model",
    "heads": "model",
    "load_head": "files",
    "make_head": "model",
    "parse_head": "model",
    "Provenance": "files",
    "register_head": "model",
    "save_head": "files",
    "TipAdapter": "methods.tip_adapter",
    "TipAdapterConfig": "methods.tip_adapter",
    "TipAdapterF": "methods.tip_adapter_f",
    "TipAdapterFConfig": "methods.tip_adapter_f",
    "ZeroShotConfig": "methods.zero_shot",
    "ZeroShotHead": "methods.zero_shot",
}

__all__ = [
    "FewShotHead",
    "HeadConfig",
    "Provenance",
    "TipAdapter",
    "TipAdapterConfig",
    "TipAdapterF",
    "TipAdapterFConfig",
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

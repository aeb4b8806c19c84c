"""Adapters for vision-and-language models whose weight sharing is declared, not coded.

Names are loaded when they are asked for: configurations are described without torch, so that a recipe is
checked in a moment.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from weft.core.adapted.arithmetic import combine_tasks
    from weft.core.adapted.attaching import attach, detach
    from weft.core.adapted.merging import merge, merged
    from weft.core.backbone.family import Family, register_family
    from weft.core.errors import WeftError
    from weft.core.files.loading import load_adapter
    from weft.core.planning import Plan, plan
    from weft.core.sharing import Sharing
    from weft.core.unit.method import MethodConfig, parse_method
    from weft.core.unit.protocol import UnitConfig, register_unit
    from weft.core.units.adaptformer import AdaptFormerConfig
    from weft.core.units.aim import AIMConfig
    from weft.core.units.bitfit import BitFitConfig
    from weft.core.units.bottleneck import BottleneckConfig
    from weft.core.units.compacter import CompacterConfig
    from weft.core.units.convpass import ConvpassConfig
    from weft.core.units.frame_attention import FrameAttentionConfig
    from weft.core.units.frozen import FrozenConfig
    from weft.core.units.full import FullConfig
    from weft.core.units.hyperformer import HyperformerConfig
    from weft.core.units.ia3 import IA3Config
    from weft.core.units.key_value_branch import KeyValueBranchConfig
    from weft.core.units.lora import LoRAConfig
    from weft.core.units.low_rank import LowRankConfig
    from weft.core.units.lst import LSTConfig
    from weft.core.units.mma import MMAConfig
    from weft.core.units.norms import NormsConfig
    from weft.core.units.peft import PEFTConfig
    from weft.core.units.prefix import PrefixConfig
    from weft.core.units.prompt import PromptConfig
    from weft.core.units.st_adapter import STAdapterConfig
    from weft.core.units.uniadapter import UniAdapterConfig
    from weft.core.units.vpt import VPTConfig

_HOMES = {
    "AdaptFormerConfig": "weft.core.units.adaptformer",
    "AIMConfig": "weft.core.units.aim",
    "attach": "weft.core.adapted.attaching",
    "BitFitConfig": "weft.core.units.bitfit",
    "BottleneckConfig": "weft.core.units.bottleneck",
    "combine_tasks": "weft.core.adapted.arithmetic",
    "CompacterConfig": "weft.core.units.compacter",
    "ConvpassConfig": "weft.core.units.convpass",
    "detach": "weft.core.adapted.attaching",
    "Family": "weft.core.backbone.family",
    "FrameAttentionConfig": "weft.core.units.frame_attention",
    "FrozenConfig": "weft.core.units.frozen",
    "FullConfig": "weft.core.units.full",
    "HyperformerConfig": "weft.core.units.hyperformer",
    "IA3Config": "weft.core.units.ia3",
    "KeyValueBranchConfig": "weft.core.units.key_value_branch",
    "load_adapter": "weft.core.files.loading",
    "LoRAConfig": "weft.core.units.lora",
    "LowRankConfig": "weft.core.units.low_rank",
    "LSTConfig": "weft.core.units.lst",
    "merge": "weft.core.adapted.merging",
    "merged": "weft.core.adapted.merging",
    "MethodConfig": "weft.core.unit.method",
    "MMAConfig": "weft.core.units.mma",
    "NormsConfig": "weft.core.units.norms",
    "parse_method": "weft.core.unit.method",
    "PEFTConfig": "weft.core.units.peft",
    "Plan": "weft.core.planning",
    "plan": "weft.core.planning",
    "PrefixConfig": "weft.core.units.prefix",
    "PromptConfig": "weft.core.units.prompt",
    "register_family": "weft.core.backbone.family",
    "register_unit": "weft.core.unit.protocol",
    "Sharing": "weft.core.sharing",
    "STAdapterConfig": "weft.core.units.st_adapter",
    "UniAdapterConfig": "weft.core.units.uniadapter",
    "UnitConfig": "weft.core.unit.protocol",
    "VPTConfig": "weft.core.units.vpt",
    "WeftError": "weft.core.errors",
}

__all__ = [
    "AIMConfig",
    "AdaptFormerConfig",
    "BitFitConfig",
    "BottleneckConfig",
    "CompacterConfig",
    "ConvpassConfig",
    "Family",
    "FrameAttentionConfig",
    "FrozenConfig",
    "FullConfig",
    "HyperformerConfig",
    "IA3Config",
    "KeyValueBranchConfig",
    "LSTConfig",
    "LoRAConfig",
    "LowRankConfig",
    "MMAConfig",
    "MethodConfig",
    "NormsConfig",
    "PEFTConfig",
    "Plan",
    "PrefixConfig",
    "PromptConfig",
    "STAdapterConfig",
    "Sharing",
    "UniAdapterConfig",
    "UnitConfig",
    "VPTConfig",
    "WeftError",
    "attach",
    "combine_tasks",
    "detach",
    "load_adapter",
    "merge",
    "merged",
    "parse_method",
    "plan",
    "register_family",
    "register_unit",
]


class _Package(types.ModuleType):
    """The package, in which `plan` and `attach` are the functions although files of these names lie in it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(_HOMES[name]), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *_HOMES})


sys.modules[__name__].__class__ = _Package

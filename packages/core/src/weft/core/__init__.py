"""Adapters for vision-and-language models whose weight sharing is declared, not coded.

Names are loaded when they are asked for: configurations are described without torch, so that a recipe is
checked in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.registry import lazy_names

if TYPE_CHECKING:
    from weft.core.adapted.attaching import attach, detach
    from weft.core.adapted.auxiliary_losses import auxiliary_losses
    from weft.core.adapted.merging import merge, merged
    from weft.core.adapted.start_check import StartWarning
    from weft.core.adapted.task_arithmetic import combine_tasks
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
    from weft.core.units.hydra_lora import HydraLoRAConfig
    from weft.core.units.hyperformer import HyperformerConfig
    from weft.core.units.ia3 import IA3Config
    from weft.core.units.key_value_branch import KeyValueBranchConfig
    from weft.core.units.lora import LoRAConfig
    from weft.core.units.low_rank import LowRankConfig
    from weft.core.units.lst import LSTConfig
    from weft.core.units.mma import MMAConfig
    from weft.core.units.mtl_lora import MTLLoRAConfig
    from weft.core.units.norms import NormsConfig
    from weft.core.units.peft import PEFTConfig
    from weft.core.units.prefix import PrefixConfig
    from weft.core.units.prompt import PromptConfig
    from weft.core.units.st_adapter import STAdapterConfig
    from weft.core.units.uniadapter import UniAdapterConfig
    from weft.core.units.vera import VeRAConfig
    from weft.core.units.vpt import VPTConfig

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
    "HydraLoRAConfig",
    "HyperformerConfig",
    "IA3Config",
    "KeyValueBranchConfig",
    "LSTConfig",
    "LoRAConfig",
    "LowRankConfig",
    "MMAConfig",
    "MTLLoRAConfig",
    "MethodConfig",
    "NormsConfig",
    "PEFTConfig",
    "Plan",
    "PrefixConfig",
    "PromptConfig",
    "STAdapterConfig",
    "Sharing",
    "StartWarning",
    "UniAdapterConfig",
    "UnitConfig",
    "VPTConfig",
    "VeRAConfig",
    "WeftError",
    "attach",
    "auxiliary_losses",
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

__getattr__, __dir__ = lazy_names(__name__)

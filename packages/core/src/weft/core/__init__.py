"""Adapters for vision-and-language models whose weight sharing is declared, not coded.

Names are loaded when they are asked for: configurations are described without torch, so that a recipe is
checked in a moment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from weft.core.registry import lazy_names

if TYPE_CHECKING:
    from weft.core.adapted.attaching import attach as attach
    from weft.core.adapted.attaching import detach as detach
    from weft.core.adapted.auxiliary_losses import auxiliary_losses as auxiliary_losses
    from weft.core.adapted.merging import merge as merge
    from weft.core.adapted.merging import merged as merged
    from weft.core.adapted.start_check import StartWarning as StartWarning
    from weft.core.adapted.task_arithmetic import combine_tasks as combine_tasks
    from weft.core.backbone.family import Family as Family
    from weft.core.backbone.family import register_family as register_family
    from weft.core.errors import WeftError as WeftError
    from weft.core.files.loading import load_adapter as load_adapter
    from weft.core.planning import Plan as Plan
    from weft.core.planning import plan as plan
    from weft.core.sharing import Sharing as Sharing
    from weft.core.unit.method import MethodConfig as MethodConfig
    from weft.core.unit.method import parse_method as parse_method
    from weft.core.unit.protocol import UnitConfig as UnitConfig
    from weft.core.unit.protocol import register_unit as register_unit
    from weft.core.units.adaptformer import AdaptFormerConfig as AdaptFormerConfig
    from weft.core.units.aim import AIMConfig as AIMConfig
    from weft.core.units.bitfit import BitFitConfig as BitFitConfig
    from weft.core.units.bottleneck import BottleneckConfig as BottleneckConfig
    from weft.core.units.compacter import CompacterConfig as CompacterConfig
    from weft.core.units.convpass import ConvpassConfig as ConvpassConfig
    from weft.core.units.frame_attention import FrameAttentionConfig as FrameAttentionConfig
    from weft.core.units.frozen import FrozenConfig as FrozenConfig
    from weft.core.units.full import FullConfig as FullConfig
    from weft.core.units.hydra_lora import HydraLoRAConfig as HydraLoRAConfig
    from weft.core.units.hyperformer import HyperformerConfig as HyperformerConfig
    from weft.core.units.ia3 import IA3Config as IA3Config
    from weft.core.units.key_value_branch import KeyValueBranchConfig as KeyValueBranchConfig
    from weft.core.units.lora import LoRAConfig as LoRAConfig
    from weft.core.units.low_rank import LowRankConfig as LowRankConfig
    from weft.core.units.lst import LSTConfig as LSTConfig
    from weft.core.units.mma import MMAConfig as MMAConfig
    from weft.core.units.mtl_lora import MTLLoRAConfig as MTLLoRAConfig
    from weft.core.units.norms import NormsConfig as NormsConfig
    from weft.core.units.peft import PEFTConfig as PEFTConfig
    from weft.core.units.prefix import PrefixConfig as PrefixConfig
    from weft.core.units.prompt import PromptConfig as PromptConfig
    from weft.core.units.st_adapter import STAdapterConfig as STAdapterConfig
    from weft.core.units.uniadapter import UniAdapterConfig as UniAdapterConfig
    from weft.core.units.vera import VeRAConfig as VeRAConfig
    from weft.core.units.vpt import VPTConfig as VPTConfig

__getattr__, __dir__ = lazy_names(__name__)

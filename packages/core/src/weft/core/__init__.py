"""Adapters for vision-and-language models whose weight sharing is declared, not coded."""

from weft.core.attach import attach, detach
from weft.core.checkpoint import load_adapter
from weft.core.errors import WeftError
from weft.core.family import Family, register_family
from weft.core.method import MethodConfig, parse_method
from weft.core.plan import Plan, plan
from weft.core.sharing import Sharing
from weft.core.unit import UnitConfig, register_unit
from weft.core.units.bitfit import BitFitConfig
from weft.core.units.bottleneck import BottleneckConfig
from weft.core.units.compacter import CompacterConfig
from weft.core.units.frozen import FrozenConfig
from weft.core.units.full import FullConfig
from weft.core.units.hyperformer import HyperformerConfig
from weft.core.units.ia3 import IA3Config
from weft.core.units.lora import LoRAConfig
from weft.core.units.low_rank import LowRankConfig
from weft.core.units.norms import NormsConfig
from weft.core.units.prompt import PromptConfig

__all__ = [
    "BitFitConfig",
    "BottleneckConfig",
    "CompacterConfig",
    "Family",
    "FrozenConfig",
    "FullConfig",
    "HyperformerConfig",
    "IA3Config",
    "LoRAConfig",
    "LowRankConfig",
    "MethodConfig",
    "NormsConfig",
    "Plan",
    "PromptConfig",
    "Sharing",
    "UnitConfig",
    "WeftError",
    "attach",
    "detach",
    "load_adapter",
    "parse_method",
    "plan",
    "register_family",
    "register_unit",
]

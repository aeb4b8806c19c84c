"""Every registered head keeps the contract."""

from typing import Any, ClassVar

from weft.core.few_shot import heads
from weft.core.testing import HeadContract

# Short trainings and coarse grids: the contract is about behaviour, not about scores.
QUICK: dict[str, dict[str, Any]] = {
    "ape": {"search_steps": (4, 3), "gamma_steps": 2},
    "ape_t": {"search_steps": (4, 3), "gamma_steps": 2, "epochs": 2},
    "clap": {"epochs": 20},
    "clip_adapter": {"epochs": 2},
    "clip_lora": {"steps_per_shot": 2},
    "cocoop": {"epochs": 1, "context_tokens": 2, "context_width": 8},
    "coop": {"epochs": 2, "context_tokens": 2, "context_width": 8},
    "cross_modal_probe": {"epochs": 2, "rates": (1e-2,)},
    "linear_probe": {"penalties": (0.1, 1.0)},
    "lp_plus_plus": {"epochs": 10},
    "mma": {"epochs": 1},
    "mmrl": {"epochs": 1, "token_size": 8, "tokens": 2},
    "multi_modal_adapter": {"epochs": 2, "hidden_size": 8, "num_heads": 2, "bottleneck_size": 4},
    "prolip": {"epochs": 2},
    "task_res": {"epochs": 2},
    "tip_adapter": {"search_steps": (4, 3)},
    "tip_adapter_f": {"search_steps": (4, 3), "epochs": 2},
    "two_sfs": {"steps_per_shot": 4},
    "uniadapter": {"steps_per_shot": 2, "bottleneck_size": 4},
    "xmadapter": {"search_steps": (4, 3), "epochs": 2},
}


class TestHeads(HeadContract):
    configs: ClassVar[list[dict[str, Any]]] = [
        {"method": method, **QUICK.get(method, {})} for method in heads()
    ]

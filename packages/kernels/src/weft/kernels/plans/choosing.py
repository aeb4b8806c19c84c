"""How a Triton kernel is launched: a table of plans per architecture in JSON, and a rule where there is none.

A table lists, per kernel, entries with the largest padded inner size they serve; the first that fits wins.
Entries are for 16-bit inputs; 32-bit inputs take half the block width, since they need twice the shared
memory.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from importlib import resources
from typing import Any

from torch import Tensor

from weft.kernels.backends import architecture, dot_precision

INTERPRETER = 0
_NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class LaunchPlan:
    """Block sizes, warps and stages of one kernel.

    Attributes:
        block_tokens: tokens (or queries) per program.
        block_width: features (or keys) per step.
        num_warps: warps per program.
        num_stages: depth of the software pipeline.
    """

    block_tokens: int
    block_width: int
    num_warps: int
    num_stages: int

    def constants(self, x: Tensor, tokens: str = "BT", width: str = "BD") -> dict[str, Any]:
        """What a kernel is launched with for tensors like `x`, the two block sizes under the names it has for them."""
        blocks = {tokens: self.block_tokens, width: self.block_width, "PRECISION": dot_precision(x.dtype)}
        return {**blocks, "num_warps": self.num_warps, "num_stages": self.num_stages}


def padded(size: int) -> int:
    """The smallest power of two that a matrix unit accepts as inner size and that is not below `size`."""
    return max(16, 1 << (size - 1).bit_length())


@lru_cache(maxsize=8)
def table(architecture: int) -> dict[str, list[dict[str, int]]]:
    """The table of an architecture such as 90, that of its generation, or an empty one."""
    folder = resources.files("weft.kernels.plans")
    for candidate in (architecture, architecture // 10 * 10):
        file = folder / f"sm{candidate}.json"
        if file.is_file():
            return json.loads(file.read_text())["kernels"]
    return {}


def choose_plan(kernel: str, architecture: int, inner: int, element_size: int, tokens: int) -> LaunchPlan:
    """The plan of one call.

    Args:
        kernel: name of the kernel.
        architecture: compute capability such as 90, or `INTERPRETER`.
        inner: the size that stays in registers (rank, classes, feature width), padded.
        element_size: bytes per input element.
        tokens: tokens or queries of the call.
    """
    if architecture == INTERPRETER:
        # Programs run one after the other: few and large ones are fastest.
        return LaunchPlan(64, 64, 4, 1)
    for entry in table(architecture).get(kernel, ()):
        if inner <= entry.get("max_inner", _NO_LIMIT):
            plan = LaunchPlan(*(entry[field.name] for field in fields(LaunchPlan)))
            break
    else:
        plan = _rule(inner)
    if element_size == 4:
        plan = replace(plan, block_width=max(plan.block_width // 2, 16), num_stages=min(plan.num_stages, 2))
    if tokens < 4 * plan.block_tokens and plan.block_tokens > 32:
        plan = replace(plan, block_tokens=32, num_warps=4)
    return plan


def plan_for(kernel: str, x: Tensor, inner: int, tokens: int) -> LaunchPlan:
    """The plan of `kernel` for tensors like `x`, with `inner` not yet padded."""
    return choose_plan(kernel, architecture(x.device), padded(inner), x.element_size(), tokens)


def _rule(inner: int) -> LaunchPlan:
    if inner <= 64:
        return LaunchPlan(64, 64, 4, 2)
    return LaunchPlan(64, 32, 8, 2) if inner <= 128 else LaunchPlan(32, 32, 8, 2)

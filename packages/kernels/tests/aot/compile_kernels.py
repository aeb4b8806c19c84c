"""Compile every shipped plan to machine code without a GPU and report what each kernel uses.

Run as a script, in a process of its own, because kernels loaded under the interpreter cannot be compiled:

    python compile_kernels.py 90            # prints one JSON line per kernel and plan

Each line has the kernel, the plan's inner size, the variant, and: registers, stack bytes, spills (LDL + STL
instructions), shared memory in bytes, and the numbers of HGMMA, HMMA and 16-byte store instructions.
"""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase
from triton.runtime import driver
from triton.runtime.jit import MockTensor

from weft.kernels.bottleneck import kernels as bottleneck
from weft.kernels.cache import kernels as cache
from weft.kernels.dropout import HIDDEN, OUTPUT, keep_threshold
from weft.kernels.kronecker import kernels as kronecker
from weft.kernels.plans.choosing import choose_plan, table

TOOLS = pathlib.Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
WIDTH, TOKENS = 1024, 1 << 16
THRESHOLD = keep_threshold(0.1)
VARIANTS = (
    ("plain", False, {"DROP_INPUT": 0, "DROP_HIDDEN": 0, "DROP": 0}),
    ("norm+dropout", True, {"DROP_INPUT": 0, "DROP_HIDDEN": 0, "DROP": THRESHOLD}),
    ("dropouts", False, {"DROP_INPUT": THRESHOLD, "DROP_HIDDEN": THRESHOLD, "DROP": THRESHOLD}),
)


class CompileOnly(DriverBase):
    """A driver for a GPU that is not there."""

    def __init__(self, architecture: int) -> None:
        """Pretend to be a device of `architecture`."""
        self.target = GPUTarget("cuda", architecture, 32)

    @classmethod
    def is_active(cls) -> bool:
        """Always."""
        return True

    def get_current_target(self) -> GPUTarget:
        """The pretended target."""
        return self.target

    def get_active_torch_device(self) -> torch.device:
        """A device name nothing is ever put on."""
        return torch.device("cuda", 0)

    def get_current_device(self) -> int:
        """Differs per architecture, since it keys the cache of compiled kernels."""
        return int(self.target.arch)

    def get_current_stream(self, device: Any = None) -> int:
        """No stream."""
        return 0

    def map_python_to_cpp_type(self, ty: str) -> str:
        """Unused."""
        return ty

    def get_benchmarker(self) -> Any:
        """There is nothing to time."""
        return None

    def get_device_interface(self) -> Any:
        """The module torch would use."""
        return torch.cuda

    def get_empty_cache_for_benchmark(self) -> Any:
        """There is no cache to flush."""
        return None

    def clear_cache(self, cache: Any) -> None:
        """There is no cache to clear."""


def tensor(dtype: torch.dtype = torch.bfloat16) -> MockTensor:
    """A pointer argument; alignment as of a fresh allocation."""
    return MockTensor(dtype, (64, WIDTH))


def launches(architecture: int) -> Iterator[tuple[str, str, int, Any, tuple[Any, ...], dict[str, Any]]]:
    """(kernel name, variant, inner size, kernel, arguments, constants) for every plan of `architecture`."""
    half, full, index, wide = tensor(), tensor(torch.float32), tensor(torch.int32), tensor(torch.int64)
    for name, entries in table(architecture).items():
        for entry in entries:
            inner = min(entry.get("max_inner", 128), 1024)
            plan = choose_plan(name, architecture, inner, 2, TOKENS)
            meta = {"num_warps": plan.num_warps, "num_stages": plan.num_stages, "PRECISION": "ieee"}
            block = {"BT": plan.block_tokens, "BD": plan.block_width, "BR": inner}
            if name == "bottleneck_forward":
                for variant, full_set, dropouts in VARIANTS:
                    yield (name, variant, inner,
                    bottleneck.bottleneck_forward, (
                        half, half, half, full, half, half, half, wide, index, wide, half, half, full, TOKENS, 64, 0.5,
                    ), meta | block | {
                        "NORM_EPS": 1e-5,
                        "D_IN": WIDTH, "D_OUT": WIDTH, "R": inner, "ACT": "gelu_tanh", "ROUTED": True,
                        "DOWN_BIAS": True, "UP_BIAS": True, "RESIDUAL": True,
                        "SCALE": "channel" if full_set else "none", "NORM": full_set, **dropouts,
                        "SAVE": True,
                    })  # fmt: skip
            elif name == "bottleneck_backward_input":
                for variant, full_set, dropouts in VARIANTS:
                    yield (name, variant, inner,
                           bottleneck.bottleneck_backward_input, (
                        half, half, half, full, half, half, full, half, wide, index, wide, half, half, TOKENS, 64, 0.5,
                    ), meta | block | {
                        "D_IN": WIDTH, "D_OUT": WIDTH, "R": inner, "ACT": "gelu_tanh", "ROUTED": True,
                        "DOWN_BIAS": True, "SCALE": "channel" if full_set else "none", "NORM": full_set,
                        **dropouts, "ADD_INPUT": True, "NEED_X": True,
                    })  # fmt: skip
            elif name == "outer_partials":
                for variant, full_set, dropouts in VARIANTS:
                    yield (name, variant, inner, bottleneck.outer_partials, (
                        half, half, full, wide, index, wide, full, full, full, TOKENS, 64, 8, 4,
                    ), meta | block | {
                        "D": WIDTH, "R": inner, "ACT": "gelu_tanh", "ROUTED": True, "NORM": full_set,
                        "DROP_WIDE": dropouts["DROP"], "WIDE_STREAM": OUTPUT, "DROP_NARROW": dropouts["DROP_HIDDEN"],
                        "WIDE_SUM": True, "NARROW_SUM": not dropouts["DROP_HIDDEN"],
                    })  # fmt: skip
            elif name == "grouped_product":
                for up in (False, True):
                    yield (name, "up" if up else "down", inner, bottleneck.grouped_product, (
                        half, half, half, half, half, half, wide, index, wide, half, TOKENS, 64, 0.5,
                    ), meta | {
                        "UP": up,
                        "K": 512 if up else WIDTH, "N": WIDTH if up else 512, "TRANSPOSED": False,
                        "ACT": "gelu_tanh" if up else "identity", "BACK_ACT": "identity", "BIAS": True,
                        "IN_SCALE": "none", "SCALE": "task" if up else "none", "RESIDUAL": up,
                        "DROP_IN": THRESHOLD * up, "IN_STREAM": HIDDEN, "DROP_OUT": THRESHOLD * up,
                        "OUT_STREAM": OUTPUT, "ROUTED": True, "BT": plan.block_tokens, "BN": 128,
                        "BK": plan.block_width,
                    })  # fmt: skip
            elif name == "cache_uniform":
                yield (name, "16 shots", inner, cache.sums_uniform, (
                    half, half, full, full, full, full, TOKENS, 1000, 1, 1.5,
                ), meta | {
                    "D": WIDTH, "SHOTS": 16, "WEIGHTS": False, "INIT": True, "BQ": plan.block_tokens, "BC": 8,
                    "BD": plan.block_width,
                })  # fmt: skip
            elif name == "cache_ragged":
                yield (name, "32 classes", inner, cache.sums_ragged, (
                    half, half, index, index, full, full, full, full, TOKENS, 1000, 1.5,
                ), meta | {
                    "D": WIDTH, "WEIGHTS": False, "INIT": True, "BQ": plan.block_tokens, "BK": 128, "BC": 32,
                    "BD": plan.block_width,
                })  # fmt: skip
            elif name == "cache_backward":
                yield (name, "keys", inner, cache.sums_backward, (
                    half, half, index, full, full, full, half, full, full, TOKENS, TOKENS, 1000, 1, 1.5,
                ), meta | {
                    "D": inner, "OWN_KEYS": True, "WEIGHTS": False, "NEED_FEATURES": True, "NEED_BETAS": True,
                    "NEED_WEIGHTS": False, "BO": plan.block_tokens, "BT": plan.block_width, "BD": inner,
                    "BB": 16,
                })  # fmt: skip
            elif name in ("block_contract", "block_expand"):
                thin = {"M": WIDTH, "K": inner, "BT": plan.block_tokens, "BD": plan.block_width, "BK": inner}
                if name == "block_contract":
                    yield (
                        name,
                        "thin",
                        inner,
                        kronecker.block_contract,
                        (half, half, half, TOKENS),
                        meta | thin,
                    )
                else:
                    arguments = (half, half, half, half, half, TOKENS, 4)
                    yield (name, "bias", inner, kronecker.block_expand, arguments,
                           meta | thin | {"BIAS": True, "RESIDUAL": True})  # fmt: skip
            else:
                common = {
                    "A": 4, "M_IN": 192, "K_IN": 4, "R": inner, "B": 4, "M_OUT": 192, "K_OUT": 4,
                    "ACT": "gelu_tanh", "BI": 16, "BO": 16,
                }  # fmt: skip
                if name == "compacter_forward":
                    yield (name, "n=4 rank 1", inner, kronecker.compacter_forward,
                    (half,) * 11 + (TOKENS, 0.5),
                           meta | block | common | {"DOWN_BIAS": True, "UP_BIAS": True, "RESIDUAL": True,
                                                    "SAVE": True})  # fmt: skip
                else:
                    yield (name, "n=4 rank 1", inner, kronecker.compacter_backward,
                    (half,) * 10 + (TOKENS, 0.5),
                           meta | block | common | {"ADD_INPUT": True, "NEED_X": True})  # fmt: skip


def inspect(cubin: bytes) -> dict[str, int]:
    """Registers and stack from the resource table, instruction counts from the disassembly."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run(
            [TOOLS / "cuobjdump", "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
        listing = subprocess.run(
            [TOOLS / "nvdisasm", file.name], capture_output=True, text=True, check=True
        ).stdout
    count = {
        name: len(re.findall(pattern, listing))
        for name, pattern in {
            "spills": r"\b(?:LDL|STL)\b",
            "hgmma": r"\bHGMMA\b",
            "hmma": r"\bHMMA\b",
            "tcgen05": r"\bUTC[A-Z]*MMA\b",
            "wide_stores": r"\bSTG\.E(?:\.[A-Z0-9]+)*\.128\b",
        }.items()
    }
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found is not None, usage
    return {"registers": int(found[1]), "stack": int(found[2]), **count}


def main(architecture: int) -> None:
    """Compile everything for `architecture` and print one JSON line each."""
    driver.set_active(CompileOnly(architecture))
    for name, variant, inner, kernel, arguments, constants in launches(architecture):
        compiled = kernel.warmup(*arguments, **constants, grid=(1,))
        row = {"kernel": name, "variant": variant, "inner": inner, "architecture": architecture}
        row |= {"shared": compiled.metadata.shared, "triton": triton.__version__}
        print(json.dumps(row | inspect(compiled.asm["cubin"])), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))

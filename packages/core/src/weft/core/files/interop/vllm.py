"""What vLLM's loader takes of PEFT's format: LoRA of one rank and one scale, in the language model alone.

It reads `r` and `lora_alpha` and neither of the patterns beside them, no DoRA, and nothing trained in full; maps of a
vision tower it leaves out with a warning. A rank is filled up with zeros, which change nothing; scales that differ are
multiplied into `lora_B`, as vLLM itself does with one scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from weft.core.errors import CheckpointError
from weft.core.files.interop.peft_files import PeftFiles
from weft.core.files.interop.peft_keys import PREFIX
from weft.core.files.interop.peft_settings import alpha_of
from weft.core.planning import Plan

SERVED_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values of `--max-lora-rank`, of which a server needs one that no adapter passes."""


def served_rank(rank: int) -> int:
    """The value of `--max-lora-rank` for adapters, of which the largest has this rank.

    Raises:
        CheckpointError: If it is larger than vLLM serves.
    """
    found = next((each for each in SERVED_RANKS if each >= rank), None)
    if found is None:
        raise CheckpointError(
            f"`rank` must be at most {SERVED_RANKS[-1]} to be served by vLLM, but is {rank}. Train a smaller one, or "
            "export merged folders (--for merged)."
        )
    return found


def one_rank(files: PeftFiles) -> PeftFiles:
    """The same LoRA with one rank and one scale for all maps, without patterns.

    Alpha and rank are equal unless all maps had one scale.
    """
    words, end = files.words, ".lora_A.weight"
    maps = [name.removesuffix(end) for name in files.tensors if name.endswith(end)]
    ranks = {path: len(files.tensors[f"{path}.lora_A.weight"]) for path in maps}
    scales = {path: _scale(words, path.removeprefix(PREFIX), rank) for path, rank in ranks.items()}
    rank = max(ranks.values())
    common = scales[maps[0]]
    alike = len(set(scales.values())) == 1 and common * rank / rank == common
    tensors = dict(files.tensors)
    for path in maps:
        down, up = f"{path}.lora_A.weight", f"{path}.lora_B.weight"
        more = rank - ranks[path]
        tensors[down] = nn.functional.pad(tensors[down], (0, 0, 0, more))
        tensors[up] = nn.functional.pad(tensors[up] if alike else tensors[up] * scales[path], (0, more))
    alpha = common * rank if alike else rank
    settings: dict[str, Any] = {
        "r": rank,
        "lora_alpha": alpha,
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
    }
    # Roles with their ranks would no longer be true.
    return PeftFiles(tensors, {**words, **settings}, {})


def check_served(plan: Plan, with_full: bool) -> None:
    """Refuse what vLLM would not load, or would leave out.

    Raises:
        CheckpointError: With what can be done instead.
    """
    odd = sorted({config.method for config in plan.configs if config.parts} - {"lora"})
    if odd:
        raise CheckpointError(
            f"`method` must be lora to be served by vLLM, but is {' and '.join(odd)}. Train `method: lora`, or export "
            "merged folders (--for merged) where the method can be merged."
        )
    if any(getattr(config, "magnitude", False) for config in plan.configs):
        raise CheckpointError(
            "`magnitude` must be false to be served by vLLM, which has no DoRA, but is true. Export merged folders "
            "(--for merged), or train without it."
        )
    if with_full and plan.full:
        raise CheckpointError(
            f"`train_full` must be empty to be served by vLLM, which loads LoRA alone, but trains {plan.full[0].path} "
            "and the like. Put what is trained in full into a base folder (--split), or export merged folders."
        )
    outside = [unit.site for unit in plan.units if unit.site.tower != "text"]
    if outside:
        raise CheckpointError(
            f"`towers` must be text alone to be served by vLLM, which leaves out LoRA elsewhere, but "
            f"{outside[0].address} and {len(outside) - 1} more sites lie outside of the language model. Train with "
            "towers: [text], or export merged folders (--for merged)."
        )


def _scale(words: Mapping[str, Any], path: str, rank: int) -> float:
    alpha = alpha_of(words, [path])
    return float(f"{alpha / (rank**0.5 if words['use_rslora'] else rank):.12g}")

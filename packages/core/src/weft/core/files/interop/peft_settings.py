"""What `adapter_config.json` of PEFT says about LoRA, (IA)³ and VeRA: what is computed alike, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from weft.core.errors import CheckpointError

HALVES = {"LORA": ("lora_A", "lora_B"), "IA3": ("ia3_l",), "VERA": ("vera_lambda_d", "vera_lambda_b")}
MAGNITUDE = "lora_magnitude_vector"
# VeRA's matrices, of which a file holds one pair for all maps.
MATRICES = ("base_model.vera_A", "base_model.vera_B")

# Options that say where a method acts, how it starts and who made it; the tensors of the file are its result.
_OF_NO_WEIGHT = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "d_initial",
    "ensure_weight_tying",
    "eva_config",
    "exclude_modules",
    "feedforward_modules",
    "inference_mode",
    "init_ia3_weights",
    "init_lora_weights",
    "init_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "projection_prng_key",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "save_projection",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
    "velora_config",
    "vera_dropout",
}
_KINDS: tuple[tuple[str, type, str], ...] = (
    ("alpha_pattern", dict, "a mapping from names"),
    ("modules_to_save", list, "a list of names"),
    ("bias", str, "a word"),
)
# Ways to start that leave the weights of the backbone as they are.
_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


def check_settings(words: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse what our units do not compute; the names of the tensors that every map has.

    Raises:
        CheckpointError: If it is another method, or an option changes what it computes.
    """
    kind = words.get("peft_type")
    if kind not in HALVES:
        raise CheckpointError(
            f"`folder` must hold a LoRA, an (IA)³ or a VeRA of PEFT, but its peft_type is {kind!r}. Other kinds are "
            "not read."
        )
    if odd := sorted(name for name, value in words.items() if value and name not in _OF_NO_WEIGHT):
        raise CheckpointError(
            f"`folder` must hold what LoRA, DoRA, (IA)³ and VeRA compute on linear maps, but sets {', '.join(odd)}. "
            "Merge it in PEFT, or train it again."
        )
    _check_kinds(words)
    start = words.get("init_lora_weights")
    if start not in _STARTS and str(start).lower() != "gaussian":
        raise CheckpointError(
            f"`folder` must hold an adapter of the backbone's own weights, but `init_lora_weights` is {start!r}, "
            "which changed them. Save it with PEFT's `path_initial_model_for_weight_conversion`, or merge it there."
        )
    return (*HALVES[kind], MAGNITUDE) if words.get("use_dora") else HALVES[kind]


def alpha_of(words: Mapping[str, Any], names: Iterable[str]) -> float:
    """The numerator of the scale of a map by its paths, the one that it was trained under first.

    Raises:
        CheckpointError: If it is no positive number, or a pattern is no regular expression.
    """
    patterns = words.get("alpha_pattern") or {}
    value: Any = words.get("lora_alpha", 8)
    for name in names:
        key = next((key for key in patterns if _fits(key, name)), None)
        if key is not None:
            value = patterns[key]
            break
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise CheckpointError(
            f"`folder` must scale its updates by a positive number, but the alpha of {next(iter(names))} is {value!r}. "
            "Copy or save it again."
        )
    return float(value)


def patterns_for(values: Mapping[str, float], default: float) -> dict[str, float]:
    """The patterns by which PEFT gives each map its own value; `default` holds where no pattern fits.

    PEFT takes the first pattern that is the end of a path, so that a longer path goes first, and one that ends in
    another is written too.
    """
    odd = {path for path, value in values.items() if value != default}
    odd |= {path for path in values for other in odd if path.endswith(f".{other}")}
    return {path: values[path] for path in sorted(odd, key=lambda path: (-len(path), path))}


def tidy(alpha: float) -> float:
    """A scale's numerator without the rounding of the arithmetic that gave it."""
    return float(f"{alpha:.12g}")


def _check_kinds(words: Mapping[str, Any]) -> None:
    for name, kind, called in _KINDS:
        value = words.get(name)
        names = list(value) if isinstance(value, list | dict) else []
        if value is not None and not (
            isinstance(value, kind) and all(isinstance(each, str) for each in names)
        ):
            raise CheckpointError(
                f"`folder` must have {called} as `{name}` in its settings, but has {value!r}. Copy or save it again."
            )


def _fits(pattern: str, name: str) -> bool:
    try:
        return re.match(rf"(.*\.)?({pattern})$", name) is not None
    except re.error as error:
        raise CheckpointError(
            f"`folder` must have regular expressions in `alpha_pattern`, but {pattern!r} is none: {error}. Copy or "
            "save it again."
        ) from None

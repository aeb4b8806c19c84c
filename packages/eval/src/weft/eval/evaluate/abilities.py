"""What a model can do, as it declares it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

Ability = Literal["write", "score", "weigh", "embed", "match"]

ABILITIES: Mapping[Ability, str] = MappingProxyType(
    {
        "write": "write an answer",
        "score": "tell how likely given answers are",
        "weigh": "tell how likely each of many answers to one question is, in training too",
        "embed": "give features of texts and of images",
        "match": "tell whether a text belongs to an image, looking at both",
    }
)
"""What a model may declare as `abilities`, in words."""

METHODS: Mapping[Ability, tuple[str, ...]] = MappingProxyType(
    {
        "write": ("generate",),
        "score": ("generate", "forward"),
        "weigh": ("answer_losses",),
        "embed": ("encode_text", "encode_image"),
        "match": ("match",),
    }
)
"""What stands for an ability in a class that declares none."""

# Models of transformers whose decoder reads the answer alone, though their configs do not say so.
_ANSWER_APART = frozenset({"blip"})


def lacking(model: Any, ability: Ability) -> str | None:
    """Why a model does not have an ability, or None if it has.

    A class says what it can do by `abilities`, a set of words of `ABILITIES`. One that says nothing is taken by the
    methods it has, and, for `score`, by its config.

    Args:
        model: The model, or the reader that asks it.
        ability: What is asked of it.
    """
    name = getattr(model, "title", type(model).__name__)
    declared = getattr(model, "abilities", None)
    if declared is not None:
        if ability in declared:
            return None
        can = " and ".join(text for word, text in ABILITIES.items() if word in declared) or "do none of these"
        return f"{name} cannot {ABILITIES[ability]}: it can {can}"
    missing = [method for method in METHODS[ability] if not hasattr(model, method)]
    if missing:
        return f"{name} has no `{'` and no `'.join(missing)}`"
    if ability == "score" and getattr(getattr(model, "config", None), "model_type", None) in _ANSWER_APART:
        return f"{name} cannot {ABILITIES[ability]}; its counterpart in `weft.core.composites` can"
    return None


def continues_prompt(model: Any) -> bool:
    """Whether a model reads prompt and answer as one sequence, as decoder-only language models do.

    Its logits at a place are then those of the next token, and what it generates begins with the prompt.

    Args:
        model: The model, which a wrapper such as data parallelism may hold.
    """
    inner = getattr(model, "module", model)
    config = getattr(inner, "config", None)
    if config is None or getattr(inner, "abilities", None) is not None:
        return False
    language = getattr(config, "language_config", config)
    return not (
        config.model_type in _ANSWER_APART
        or getattr(config, "is_encoder_decoder", False)
        or getattr(language, "is_encoder_decoder", False)
    )

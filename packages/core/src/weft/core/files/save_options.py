"""What callers of `save_pretrained` may pass beside the folder, so that nothing is taken and then ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from weft.core.errors import ConfigError, unknown

# Of no meaning for two small files: how a large model is cut, by whom it is written, and how one signs in.
_WITHOUT_MEANING = ("max_shard_size", "save_function", "token", "save_peft_format", "save_original_format")
# Argument to the one value that is what we do, and what to do for another.
_FIXED: dict[str, tuple[Any, str]] = {
    "safe_serialization": (True, "An adapter is never pickled; leave it out."),
    "push_to_hub": (False, "Call `model.push_to_hub(...)`."),
    "variant": (None, "An adapter has one file; save it into a folder of its own."),
    "distributed_checkpoint": (False, "Gather the state and give it as `state_dict`."),
}


def check_save_options(options: Mapping[str, Any]) -> None:
    """Refuse arguments of `save_pretrained` that would be ignored.

    Raises:
        ConfigError: If a name is unknown, or a value asks for something else than is written.
    """
    for name, value in options.items():
        if name in _FIXED:
            fixed, advice = _FIXED[name]
            if value != fixed:
                raise ConfigError(f"`{name}` must be {fixed} for an adapter, but is {value!r}. {advice}")
        elif name not in _WITHOUT_MEANING:
            known = ["state_dict", "is_main_process", *_WITHOUT_MEANING, *_FIXED]
            raise ConfigError(unknown("an argument of `save_pretrained`", name, known))

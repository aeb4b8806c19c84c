"""A saved model of transformers that a command names, in the class that its config names."""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, AutoModel, PreTrainedModel

from weft.train.backbones.saved import fault_of_loading, load_saved, load_whole, saved_path
from weft.train.errors import RunError


def plain_model(name: str) -> Any:
    """A saved model of transformers, in the class that its config names.

    Args:
        name: Folder or hub id, or `miniature`.

    Raises:
        RunError: If it cannot be loaded.
    """
    path = saved_path(name, "--backbone")
    try:
        config = load_saved(AutoConfig, path)
        named = getattr(transformers, str(next(iter(config.architectures or ()), "")), AutoModel)
        known = isinstance(named, type) and issubclass(named, PreTrainedModel)
        return load_whole(named if known else AutoModel, path, argument="--backbone")
    except (OSError, ValueError) as error:
        raise RunError(
            f"`--backbone` must be a folder or a hub id that can be reached, but {name!r} cannot be loaded: "
            f"{fault_of_loading(error)}"
        ) from None

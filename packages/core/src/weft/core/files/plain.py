"""An adapted model as the folder of a plain one: in the backbone's own class, without units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from weft.core.adapted.bank import store_of
from weft.core.errors import CheckpointError

_OWN = "weft."


def save_plain(model: nn.Module, folder: str | Path) -> None:
    """Write the backbone as it is, with what is trained in full, and without units.

    `from_pretrained` of the backbone's class reads the folder, which is made if it is missing; the model stays as it
    is.

    Raises:
        CheckpointError: If the model has no units, or is no model of transformers.
    """
    # Here: its file takes seconds to load, and attaching needs it not.
    from transformers import PreTrainedModel

    store_of(model, CheckpointError)
    kind: Any = type(model)._weft_base  # type: ignore[attr-defined]
    if not issubclass(kind, PreTrainedModel):
        raise CheckpointError(
            f"`model` must be one of transformers to be saved as a plain folder, but is a {kind.__name__}. Save its "
            "adapter with `save_pretrained`."
        )
    state = {name: value for name, value in model.state_dict().items() if not name.startswith(_OWN)}
    kind.save_pretrained(model, folder, state_dict=state)

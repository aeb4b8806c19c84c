"""The two files of an adapter in PEFT's format."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from weft.core.files.stored_files import written_together

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"


@dataclass(frozen=True)
class PeftFiles:
    """What the files hold: tensors by key, the settings, and what the tensors' file says of itself."""

    tensors: dict[str, Tensor]
    words: dict[str, Any]
    roles: dict[str, str]

    def write(self, folder: str | Path) -> None:
        """Write both together into a folder, which is made if it is missing."""
        own = {name: value.detach().cpu().contiguous() for name, value in self.tensors.items()}
        with written_together(folder, WEIGHTS, CONFIG) as (weights, settings):
            save_file(own, weights, {"format": "pt", **self.roles})
            settings.write_text(json.dumps(self.words, indent=2) + "\n", encoding="utf-8")

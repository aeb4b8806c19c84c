"""The lines that load or serve an export."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weft.core.files.interop.vllm import served_rank
from weft.train.runs.exporting.manifest import Manifest


def launch_lines(manifest: Manifest, output: Path, processor: Mapping[str, Any]) -> list[str]:
    """How an export is loaded, or served with the settings of the processor that the recipe changes."""
    folders = {name: str(output / task.folder) for name, task in manifest.tasks.items()}
    if manifest.target == "vllm":
        return [_served(manifest, output, folders, processor)]
    places, load = dict.fromkeys(folders.values()), f"{manifest.model_class}.from_pretrained"
    if manifest.target == "merged":
        return [f"{load}({place!r})" for place in places]
    own = f", revision={manifest.revision!r}" if manifest.revision else ""
    base = f"{load}({manifest.base_path(output)!r}{own})"
    return [f"PeftModel.from_pretrained({base}, {place!r})" for place in places]


def _served(
    manifest: Manifest, output: Path, folders: Mapping[str, str], processor: Mapping[str, Any]
) -> str:
    words = ["vllm", "serve", manifest.base_path(output)]
    words += ["--revision", manifest.revision] if manifest.revision else []
    words += ["--enable-lora", "--max-lora-rank", str(served_rank(manifest.rank or 1))]
    words += ["--lora-modules", *(f"{name}={folder}" for name, folder in folders.items())]
    template = Path(next(iter(folders.values()))) / "chat_template.jinja"
    words += ["--chat-template", str(template)] if template.is_file() else []
    if processor and not manifest.is_split:
        words += ["--mm-processor-kwargs", json.dumps(dict(processor))]
    return shlex.join(words)

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
    """How an export is loaded, or served.

    Args:
        manifest: What the export says of itself.
        output: The export.
        processor: Settings of the processor that the recipe changes.
    """
    folders = {name: str(output / task.folder) for name, task in manifest.tasks.items()}
    if manifest.target == "vllm":
        return [_served(manifest, output, folders, processor)]
    kind, revision = manifest.model_class, manifest.revision
    if manifest.target == "merged":
        return [f"{kind}.from_pretrained({folder!r})" for folder in dict.fromkeys(folders.values())]
    own = f", revision={revision!r}" if revision else ""
    base = f"{kind}.from_pretrained({manifest.base_path(output)!r}{own})"
    return [f"PeftModel.from_pretrained({base}, {folder!r})" for folder in dict.fromkeys(folders.values())]


def _served(
    manifest: Manifest, output: Path, folders: Mapping[str, str], processor: Mapping[str, Any]
) -> str:
    words = ["vllm", "serve", manifest.base_path(output)]
    words += ["--revision", manifest.revision] if manifest.revision else []
    words += ["--enable-lora", "--max-lora-rank", str(served_rank(manifest.rank or 1))]
    words += ["--lora-modules", *(f"{name}={folder}" for name, folder in folders.items())]
    template = Path(next(iter(folders.values()))) / "chat_template.jinja"
    words += ["--chat-template", str(template)] if template.is_file() else []
    words += (
        ["--mm-processor-kwargs", json.dumps(dict(processor))] if processor and not manifest.is_split else []
    )
    return shlex.join(words)

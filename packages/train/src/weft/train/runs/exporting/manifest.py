"""What an export says of itself, in `weft_export.json`: its target, and the folder and the words of every task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from weft.core.files.stored_files import read_words
from weft.train.backbones.saved import saved_path
from weft.train.output.result import write_json

MANIFEST = "weft_export.json"
BASE = "base"
Target = Literal["peft", "vllm", "merged"]


@dataclass(frozen=True)
class ExportedTask:
    """One task of an export.

    Attributes:
        folder: Its folder within the export; `.` is the export itself.
        words: How a record is put to the model: `ask` or `prompt`, and `system`.
        writing: Arguments of `generate` by which the run is asked.
        error: Largest error that merging was measured to make, relative to what the maps return; None where nothing was
            merged.
    """

    folder: str
    words: dict[str, str]
    writing: dict[str, Any]
    error: float | None = None


@dataclass(frozen=True)
class Manifest:
    """An export.

    Attributes:
        target: What it is for.
        base: Model that adapters belong on: a folder or hub id, or `base`, the folder within the export that
            `--split` wrote.
        revision: Commit or tag of a hub id.
        tasks: Task to what it has.
        model_class: Class of transformers that loads the base model, or the merged ones.
        rank: Largest rank of its adapters, for vLLM; None for other targets.
    """

    target: Target
    base: str
    revision: str | None
    model_class: str
    tasks: dict[str, ExportedTask] = field(default_factory=dict)
    rank: int | None = None

    def write(self, folder: Path) -> None:
        """Write it into an export."""
        write_json(folder / MANIFEST, asdict(self))

    def base_path(self, folder: Path) -> str:
        """Where the base model of the export in a folder is, which may be within it."""
        return str(folder / self.base) if self.is_split else saved_path(self.base)

    @property
    def is_split(self) -> bool:
        """Whether the base model is in the export."""
        return self.base == BASE


def read_manifest(folder: Path) -> Manifest:
    """What the export in a folder says of itself.

    Raises:
        CheckpointError: If there is none, or it is damaged.
    """
    words = read_words(
        folder / MANIFEST, ["target", "base", "revision", "model_class", "tasks"], argument="OUTPUT"
    )
    tasks = {name: ExportedTask(**own) for name, own in words.pop("tasks").items()}
    return Manifest(**words, tasks=tasks)

"""`weft export`: a folder for each task of a run, in PEFT's format, for vLLM, or as plain merged models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.core import load_adapter
from weft.core.adapted.bank import store_of
from weft.core.adapted.merging import save_merged
from weft.core.errors import unknown
from weft.core.files.interop.peft import export_peft, export_vllm
from weft.core.files.plain import save_plain
from weft.core.files.saving import CONFIG as WEFT_CONFIG
from weft.data.processes.atomic import whole_folder
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.loading import load_adapted
from weft.train.backbones.saved import plain_model
from weft.train.errors import RunError
from weft.train.output.folders import check_writable
from weft.train.output.result import ADAPTER, RESULT
from weft.train.output.run_files import read_json
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import TaskSection
from weft.train.recipe.training import Recipe
from weft.train.runs.exporting.card import CARD, model_card
from weft.train.runs.exporting.manifest import BASE, MANIFEST, ExportedTask, Manifest, Target
from weft.train.runs.exporting.reading_files import common, save_reading, words_of, writing_of

_FOLDER = re.compile(r"\w[\w.-]*")


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a finished run."""
    return (folder / "recipe.yaml").is_file() and (folder / ADAPTER).is_dir()


def export_run(
    adapter: Path,
    output: Path,
    *,
    target: Target = "peft",
    tasks: Sequence[str] | None = None,
    backbone: str | None = None,
    split: bool = False,
    repository: str | None = None,
    licence: str | None = None,
) -> Manifest:
    """Write tasks of a run, or of a saved adapter, for another library.

    Args:
        adapter: Folder of a finished run, or one that `save_pretrained` of an adapted model wrote.
        output: Folder to write, new or empty. It holds a folder for each task; where there is one task, or all weights
            are shared, it is that folder itself.
        target: `peft`; `vllm`, whose loader takes less; or `merged`, plain folders of transformers.
        tasks: The tasks; by default all.
        backbone: Folder or hub id of the model it was trained on; a run knows its own.
        split: Put what is trained in full into a base model within the export, so that the adapters hold units alone.
        repository: What its card calls it; by default the name of the folder.
        licence: Licence that its card names, one of the hub's list.

    Returns:
        What was written.

    Raises:
        RunError: If the folder is neither, or the backbone cannot be loaded, or the output holds something.
        CheckpointError, AttachError: If the target cannot hold the adapter.
    """
    _check_output(output)
    if split and target == "merged":
        raise RunError(
            "`--split` must be left out with `--for merged`, whose folders are whole models. Leave it out."
        )
    model, name, loaded, recipe = _loaded(adapter, backbone)
    if recipe is not None and recipe.backbone.heads and target != "merged":
        raise RunError(
            f"`--for` must be 'merged' where the run added heads to {recipe.backbone.title!r}, because no other folder "
            f"holds the model that its adapter fits, but is {target!r}. Take --for merged."
        )
    chosen = _chosen(model, tasks)
    writer = _Writer(model, name, loaded, recipe, target, split)
    with whole_folder(output) as partial:
        manifest = writer.write(partial, chosen)
        manifest.write(partial)
        if recipe is not None:
            result = read_json(adapter / RESULT) if (adapter / RESULT).is_file() else {}
            title = repository or output.absolute().name
            card = model_card(recipe, model.weft.plan, result, manifest, repository=title, licence=licence)
            card.save(partial / CARD)
    return manifest


def processor_settings(adapter: Path) -> dict[str, Any]:
    """Settings of the processor that the recipe of a run changes; none for an adapter without a recipe."""
    return dict(load_recipe(adapter / "recipe.yaml").backbone.processor) if is_run(adapter) else {}


@dataclass
class _Writer:
    """Writes the folders of one export."""

    model: Any
    name: str
    loaded: LoadedBackbone | None
    recipe: Recipe | None
    target: Target
    split: bool
    rank: int | None = None

    def write(self, output: Path, chosen: Sequence[str]) -> Manifest:
        known = {} if self.recipe is None else self.recipe.tasks
        sections = {name: known.get(name, TaskSection.model_construct()) for name in chosen}
        all_shared = all(len(bank.slots) == 1 for bank in store_of(self.model).banks_by_key.values())
        if all_shared or len(chosen) == 1:
            folders = {".": list(chosen)}
        else:
            _check_names(chosen)
            folders = {task: [task] for task in chosen}
        found: dict[str, ExportedTask] = {}
        for folder, here in folders.items():
            error = self._weights(output / folder, here[0])
            writing = {name: writing_of(sections[name]) for name in here}
            if self.loaded is not None:
                save_reading(self.loaded, output / folder, common(list(writing.values())))
            for name in here:
                found[name] = ExportedTask(folder, words_of(sections[name]), writing[name], error)
        base, revision = self._base(output)
        return Manifest(self.target, base, revision, self._class(), found, self.rank)

    def _weights(self, folder: Path, task: str) -> float | None:
        model = self.model
        if self.target == "merged":
            return save_merged(model, folder, task=task).error
        if self.target == "vllm":
            rank = export_vllm(model, folder, task=task, with_full=not self.split)
            self.rank = max(rank, self.rank or 0)
        else:
            export_peft(model, folder, task=task, with_full=not self.split)
        return None

    def _class(self) -> str:
        kind: Any = type(self.model)._weft_base
        if self.loaded is not None and not self.loaded.reader.paired:
            kind = self.loaded.reader.model_class(self.loaded.reader.config)
        return str(kind.__name__)

    def _base(self, output: Path) -> tuple[str, str | None]:
        if self.split:
            save_plain(self.model, output / BASE)
            if self.loaded is not None:
                save_reading(self.loaded, output / BASE, {})
            return BASE, None
        revision = None if self.recipe is None else self.recipe.backbone.revision
        return self.name, revision


def _check_output(output: Path) -> None:
    check_writable(output, "OUTPUT")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        known = " (an earlier export)" if (output / MANIFEST).is_file() else ""
        raise RunError(
            f"`OUTPUT` must be new or an empty folder, but {output} holds something{known}. Choose another, or remove "
            "it."
        )


def _loaded(adapter: Path, backbone: str | None) -> tuple[Any, str, LoadedBackbone | None, Recipe | None]:
    """The adapted model and what its base is called; of a run, what belongs to it, and its recipe."""
    run = is_run(adapter)
    if not run and not (adapter / WEFT_CONFIG).is_file():
        raise RunError(
            f"`ADAPTER` must be the folder of a finished run or of a saved adapter, with {WEFT_CONFIG}, but {adapter} "
            "is neither. Give the folder that `weft train` or `save_pretrained` wrote."
        )
    weights = adapter / ADAPTER if run else adapter
    if backbone is not None:
        model = load_adapter(plain_model(backbone), weights)
        return model, backbone, None, None
    if not run:
        raise RunError(
            "`--backbone` must be given for an adapter without a recipe, but is not. Name the folder or hub id of the "
            "model it was trained on."
        )
    recipe = load_recipe(adapter / "recipe.yaml")
    loaded = load_adapted(recipe, folder=adapter, adapter=weights)
    return loaded.model, loaded.name, loaded, recipe


def _chosen(model: Any, tasks: Sequence[str] | None) -> list[str]:
    known = store_of(model).tasks
    chosen = list(dict.fromkeys(known if tasks is None else tasks))
    for task in chosen:
        if task not in known:
            raise RunError(unknown("`--tasks`", task, known))
    return chosen


def _check_names(tasks: Sequence[str]) -> None:
    """Refuse names that no folder of the export can have; such a task can be exported alone."""
    odd = [task for task in tasks if _FOLDER.fullmatch(task) is None or task == BASE]
    if odd:
        raise RunError(
            f"`--tasks` must be names for folders: letters, digits, '.', '-' and '_', and not {BASE!r}, but one is "
            f"{odd[0]!r}. Export that task alone, with --tasks {odd[0]!r}."
        )

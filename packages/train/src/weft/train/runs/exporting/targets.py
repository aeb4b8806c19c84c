"""The targets of an export: PEFT, which also reads what is for vLLM, and plain merged folders."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from weft.core.adapted.merging import merged
from weft.core.files.interop.peft import as_peft
from weft.core.files.interop.peft_keys import PREFIX
from weft.train.errors import RunError
from weft.train.runs.exporting.manifest import Manifest
from weft.train.runs.exporting.outputs import Origin
from weft.train.runs.exporting.target_outputs import OfTarget

_UNITS = ("lora_A", "lora_B", "lora_magnitude_vector", "ia3_l", "vera_lambda_b")


class InPeft(OfTarget):
    """An adapter that PEFT loads."""

    @cached_property
    def model(self) -> Any:
        """The base model, wrapped by PEFT."""
        try:
            from peft import PeftModel
        except ImportError:
            raise RunError(
                "`--verify` compares in PEFT's own code, but peft is not installed. Run `pip install peft`."
            ) from None
        section = self.run.recipe.backbone
        if section.name is None and not self.manifest.is_split:
            raise RunError(
                f"`--verify` loads the base model in its own class, but {section.title!r} was put together by the "
                "recipe. Export it with --split."
            )
        base = self.loaded(self.manifest.base_path(self.output), self.manifest.revision)
        return PeftModel.from_pretrained(base, self.folder, adapter_name="default").eval()

    def acting(self) -> dict[str, str]:
        """See `OfTarget.acting`: modules with an update that is not nothing, and modules of `modules_to_save`."""
        from peft.tuners.ia3 import IA3Layer
        from peft.tuners.lora import LoraLayer
        from peft.tuners.vera.layer import VeraLayer
        from peft.utils import ModulesToSaveWrapper

        found = {}
        for name, module in self.model.base_model.model.named_modules():
            if isinstance(module, ModulesToSaveWrapper) and "default" in module.modules_to_save:
                found[name] = "trained in full"
            elif isinstance(module, LoraLayer) and "default" in module.lora_B:
                acts = bool(module.lora_B["default"].weight.any())
                found |= {name: "LoRA"} if acts or "default" in module.lora_magnitude_vector else {}
            elif isinstance(module, IA3Layer) and "default" in module.ia3_l:
                found |= {name: "(IA)³"} if bool((module.ia3_l["default"] != 1).any()) else {}
            elif isinstance(module, VeraLayer) and "default" in module.vera_lambda_b:
                found |= {name: "VeRA"} if bool(module.vera_lambda_b["default"].any()) else {}
        return found


class Plain(OfTarget):
    """A folder that plain transformers loads."""

    @cached_property
    def model(self) -> Any:
        """The merged model."""
        return self.loaded(str(self.folder))

    def acting(self) -> dict[str, str]:
        """See `OfTarget.acting`: modules whose weights are those of the run's task, merged again."""
        found = self.model.state_dict()
        return {
            path: what
            for path, (what, values) in _merged_modules(self.run, self.task).items()
            if all(name in found and torch.equal(found[name], value) for name, value in values.items())
        }


def target_of(output: Path, manifest: Manifest, task: str, run: Origin) -> OfTarget:
    """A task of an export in its target's own code.

    Args:
        output: The export.
        manifest: What it says of itself.
        task: The task.
        run: The run.
    """
    kind = Plain if manifest.target == "merged" else InPeft
    return kind(output, manifest, task, run)


def expected(run: Origin, task: str, manifest: Manifest) -> dict[str, str]:
    """Path of each module of the run that has an effect in a task to what acts there.

    Args:
        run: The run.
        task: The task.
        manifest: What the export says of itself: with a base of its own, what is trained in full is part of that.
    """
    if manifest.target == "merged":
        return {path: what for path, (what, _) in _merged_modules(run, task).items()}
    files = as_peft(run.model, task=task, with_full=not manifest.is_split)
    found = dict.fromkeys(files.words["modules_to_save"] or (), "trained in full")
    by_path: dict[str, dict[str, Tensor]] = {}
    for name, value in files.tensors.items():
        path, _, half = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if half in _UNITS:
            by_path.setdefault(path, {})[half] = value
    for path, own in by_path.items():
        if "ia3_l" in own:
            if bool((own["ia3_l"] != 1).any()):
                found[path] = "(IA)³"
        elif "vera_lambda_b" in own:
            found |= {path: "VeRA"} if bool(own["vera_lambda_b"].any()) else {}
        elif bool(own["lora_B"].any()) or "lora_magnitude_vector" in own:
            found[path] = "LoRA"
    return found


def _merged_modules(run: Origin, task: str) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """Path of each module that merging changes, or that is trained in full, to what it is and its values."""
    plan = run.model.weft.plan
    paths = dict.fromkeys(unit.site.path for unit in plan.units)
    own = {f"{path}.weight": run.model.get_submodule(path).weight.clone() for path in paths}
    with merged(run.model, task=task):
        now = {f"{path}.weight": run.model.get_submodule(path).weight.clone() for path in paths}
    found = {
        path: ("merged", {f"{path}.weight": now[f"{path}.weight"]})
        for path in paths
        if not torch.equal(own[f"{path}.weight"], now[f"{path}.weight"])
    }
    state = run.model.state_dict()
    for full in plan.full:
        path = full.path.rpartition(".")[0]
        _, values = found.setdefault(path, ("trained in full", {}))
        values.setdefault(full.path, state[full.path])
    return found

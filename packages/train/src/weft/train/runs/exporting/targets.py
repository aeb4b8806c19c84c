"""An export, asked in its own library's code: plain transformers, and PEFT for adapters; weft adapts nothing there."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import AutoProcessor, AutoTokenizer, GenerationConfig

from weft.core.adapted.merging import merged
from weft.core.files.interop.peft import as_peft
from weft.core.files.interop.peft_keys import PREFIX
from weft.data import Record
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.readers.image_processor import load_transform
from weft.eval.readers.rows import Row, decoded
from weft.eval.readers.template import chat_template
from weft.train.backbones.loaded import LoadedBackbone
from weft.train.backbones.saved import load_saved
from weft.train.errors import RunError
from weft.train.recipe.training import Recipe
from weft.train.runs.exporting.manifest import Manifest
from weft.train.runs.exporting.outputs import IDS, Asked, Recording, greedy

_FULL = "trained in full"
_UNITS = ("lora_A", "lora_B", "lora_magnitude_vector", "ia3_l", "vera_lambda_b")


class Origin(Protocol):
    """The run that an export is compared with, as far as the export needs it."""

    recipe: Recipe
    model: Any
    backbone: LoadedBackbone
    batches: ReaderBatches
    device: torch.device

    def read_by(self, tokenizer: Any, transform: Any) -> ReaderBatches:
        """What makes inputs with another tokenizer and image processor."""


class OfTarget(ABC):
    """The folder of one task of an export.

    Args:
        output: The export.
        manifest: What it says of itself.
        task: The task.
        run: What it is compared with: how records are read, and the class and dtype of the model.
    """

    def __init__(self, output: Path, manifest: Manifest, task: str, run: Origin) -> None:
        self.output, self.manifest, self.task, self.run = output, manifest, task, run
        self.folder = output / manifest.tasks[task].folder

    @property
    @abstractmethod
    def model(self) -> Any:
        """The model in the target's own class."""

    @abstractmethod
    def acting(self) -> dict[str, str]:
        """Path of each module that has an effect to what acts there, in the paths of the plain model."""

    def loaded(self, path: str, revision: str | None = None) -> Any:
        """A plain model, in the dtype of the run.

        Args:
            path: Folder or hub id.
            revision: Commit or tag on the hub.
        """
        own = self.run.model
        model = load_saved(type(own)._weft_base, path, revision, dtype=next(own.parameters()).dtype)
        return model.to(self.run.device).eval()

    @cached_property
    def reading(self) -> Any:
        """The processor from the folder; of weft's own models what makes inputs by its tokenizer and transform."""
        if not self._paired:
            return AutoProcessor.from_pretrained(self.folder)
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        had = self.run.backbone.transform is not None
        return self.run.read_by(tokenizer, load_transform(str(self.folder)) if had else None)

    @property
    def _paired(self) -> bool:
        return self.run.backbone.reader.paired

    @property
    def _tokenizer(self) -> Any:
        if self._paired:
            return self.reading.reader.processor.tokenizer
        return getattr(self.reading, "tokenizer", self.reading)

    def ask(self, record: Record) -> Asked:
        """Ask one record, by the likeliest token each time."""
        inputs, prompt = self._inputs(record)
        options: dict[str, Any] = greedy(self.run.batches.rules[self.task])
        if (self.folder / "generation_config.json").is_file():
            own = GenerationConfig.from_pretrained(self.folder)
            own.update(**options, output_logits=True, return_dict_in_generate=True)
            options = {"generation_config": own}
        recording = Recording(self.model)
        with torch.inference_mode():
            logits, tokens = recording.kept(recording.generate(**inputs, **options))
        answer = self._tokenizer.decode(tokens, skip_special_tokens=True).strip()
        return Asked(inputs, prompt, logits, tokens, answer)

    def _inputs(self, record: Record) -> tuple[dict[str, Tensor], str]:
        model = self.run.model
        if self._paired:
            made = self.reading.asker.asking([self.reading.row(self.task, record)]).inputs
        else:
            made = read(self.reading, self.run.batches.row(self.task, record))
        dtype = next(value.dtype for value in model.parameters() if value.is_floating_point())
        moved = {
            name: value.to(self.run.device, dtype if value.is_floating_point() else None)
            for name, value in made.items()
            if isinstance(value, Tensor)
        }
        return moved, self._tokenizer.decode(moved[IDS][0])


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
        from peft.tuners.tuners_utils import BaseTunerLayer
        from peft.utils import ModulesToSaveWrapper

        found, units = {}, dict[str, dict[str, Tensor]]()
        for name, module in self.model.base_model.model.named_modules():
            if isinstance(module, ModulesToSaveWrapper) and "default" in module.modules_to_save:
                found[name] = _FULL
            elif isinstance(module, BaseTunerLayer):
                own = {
                    half: getattr(module, half)["default"]
                    for half in _UNITS
                    if "default" in getattr(module, half, ())
                }
                units[name] = {half: getattr(value, "weight", value) for half, value in own.items()}
        return found | _effects(units)


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
    """A task of an export in its target's own code; arguments as for `OfTarget`."""
    kind = Plain if manifest.target == "merged" else InPeft
    return kind(output, manifest, task, run)


def expected(run: Origin, task: str, manifest: Manifest) -> dict[str, str]:
    """Path of each module of the run that has an effect in a task to what acts there.

    Where the export holds a base of its own, what is trained in full is part of that.
    """
    if manifest.target == "merged":
        return {path: what for path, (what, _) in _merged_modules(run, task).items()}
    files = as_peft(run.model, task=task, with_full=not manifest.is_split)
    units: dict[str, dict[str, Tensor]] = {}
    for name, value in files.tensors.items():
        path, _, half = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        if half in _UNITS:
            units.setdefault(path, {})[half] = value
    return dict.fromkeys(files.words["modules_to_save"] or (), _FULL) | _effects(units)


def _effects(units: Mapping[str, Mapping[str, Tensor]]) -> dict[str, str]:
    """Path of each unit that has an effect to what it is, by its tensors under PEFT's names."""
    found = {}
    for path, own in units.items():
        if "ia3_l" in own and bool((own["ia3_l"] != 1).any()):
            found[path] = "(IA)³"
        elif "vera_lambda_b" in own and bool(own["vera_lambda_b"].any()):
            found[path] = "VeRA"
        elif "lora_magnitude_vector" in own or ("lora_B" in own and bool(own["lora_B"].any())):
            found[path] = "LoRA"
    return found


def _merged_modules(run: Origin, task: str) -> dict[str, tuple[str, dict[str, Tensor]]]:
    """Path of each module that merging changes, or that is trained in full, to what it is and its values."""
    plan = run.model.weft.plan
    paths = dict.fromkeys(unit.site.path for unit in plan.units)
    own = {path: run.model.get_submodule(path).weight.clone() for path in paths}
    with merged(run.model, task=task):
        now = {path: run.model.get_submodule(path).weight.clone() for path in paths}
    found = {
        path: ("merged", {f"{path}.weight": now[path]})
        for path in paths
        if not torch.equal(own[path], now[path])
    }
    state = run.model.state_dict()
    for full in plan.full:
        path = full.path.rpartition(".")[0]
        _, values = found.setdefault(path, (_FULL, {}))
        values.setdefault(full.path, state[full.path])
    return found


def read(processor: Any, row: Row) -> Mapping[str, Any]:
    """What a processor makes of a row, by its chat template where it has one, as its users call it."""
    pictures = decoded(row)
    template = chat_template(processor)
    if template is None:
        with warnings.catch_warnings():
            # One processor makes an array of a tensor, which torch and numpy 2 comment on.
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            made: Mapping[str, Any] = processor(images=pictures, text=row.text, return_tensors="pt")
        return {name: value for name, value in made.items() if name != "labels"}
    shown = iter(pictures)
    messages = [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part}
                if isinstance(part, str)
                else {"type": "image", "image": next(shown)}
                for part in turn.parts
            ],
        }
        for turn in row.turns
    ]
    own = {} if getattr(processor, "chat_template", None) else {"chat_template": template}
    found: Mapping[str, Any] = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **own
    )
    return found

"""The model card of an export, made of its run: what it is, how it scored, how it was trained, how it is loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from weft.core import composites
from weft.train.output.result import RESULT
from weft.train.output.run_files import as_written
from weft.train.output.summary import in_a_sentence, sharing_lines
from weft.train.recipe.training import Recipe
from weft.train.runs.exporting.launch import launch_lines
from weft.train.runs.exporting.manifest import Manifest

CARD = "README.md"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LIBRARIES = {"peft": "peft", "vllm": "peft", "merged": "transformers"}
_RELATIONS = {"peft": "adapter", "vllm": "adapter", "merged": "finetune"}
# What says where something is on the machine of the run, and nothing of the method.
_KEPT = {"method", "training", "seed"}


def model_card(
    recipe: Recipe,
    plan: Any,
    result: Mapping[str, Any],
    manifest: Manifest,
    *,
    repository: str,
    licence: str | None = None,
) -> ModelCard:
    """The card of an export.

    Args:
        recipe: The recipe of its run.
        plan: The plan of the run.
        result: What `result.json` of the run holds; empty where it was not scored.
        manifest: What the export says of itself.
        repository: Id of the repository on the hub, or the name of the folder.
        licence: A licence of the hub's list, or None to name none.
    """
    base = manifest.base if is_on_hub(manifest.base) else None
    title = repository.rpartition("/")[2]
    with as_written(Path(RESULT)):
        scored = _scores(result, manifest)
    data = ModelCardData(
        base_model=base,
        base_model_relation=None if base is None else _RELATIONS[manifest.target],
        library_name=_LIBRARIES[manifest.target],
        license=licence,
        pipeline_tag="image-text-to-text",
        tags=["weft", *dict.fromkeys(config.method for config in plan.configs), *manifest.tasks],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-text-to-text",
                dataset_type=task,
                dataset_name=task,
                metric_type=metric,
                metric_name=f"{metric} ({variant})" if variant else metric,
                metric_value=score,
            )
            for task, metric, variant, score, _ in scored
        ]
        or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {title}",
        in_a_sentence(recipe, plan).replace(recipe.backbone.title, base or Path(recipe.backbone.title).name),
        *_sharing(plan),
        *_scored(scored),
        *_loading(manifest, repository),
        *_words(manifest),
        *_recipe(recipe),
        _limits(manifest),
    ]
    return ModelCard("\n\n".join(parts) + "\n")


def is_on_hub(name: str) -> bool:
    """Whether a base model is one of the hub, rather than a folder of this machine."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def _scores(result: Mapping[str, Any], manifest: Manifest) -> list[tuple[str, str, str, float, int]]:
    """Task, metric, variant, score and number of records."""
    return [
        (
            task,
            str(report["metric"]),
            str(report["variant"]),
            round(float(result["scores"][task]), 2),
            int(report["n"]),
        )
        for task, report in result.get("reports", {}).items()
        if task in manifest.tasks
    ]


def _sharing(plan: Any) -> list[str]:
    lines = "\n".join(f"- {line}" for line in sharing_lines(plan))
    return [f"How weights are shared among tasks and layers:\n\n{lines}"] if lines else []


def _scored(scored: Sequence[tuple[str, str, str, float, int]]) -> list[str]:
    if not scored:
        return []
    rows = [(task, metric, variant, str(score), f"{n:,}") for task, metric, variant, score, n in scored]
    return [
        "## Scores",
        f"By the official metrics, as weft {version('weft-eval')} computes them, on the test split of each task.",
        _table("| task | metric | version | score, % | records |\n|---|---|---|---:|---:|", rows),
    ]


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def _block(language: str, *lines: str) -> str:
    return "\n".join([f"```{language}", *lines, "```"])


def _loading(manifest: Manifest, repository: str) -> list[str]:
    kind = manifest.model_class
    if manifest.target == "vllm":
        title = repository.rpartition("/")[2]
        first = f"hf download {repository} --local-dir {title}"
        return ["## Load", _block("console", first, *launch_lines(manifest, Path(title), {}))]
    task, folder = next((name, own.folder) for name, own in manifest.tasks.items())
    place = f"{repository!r}" if folder == "." else f"{repository!r}, subfolder={folder!r}"
    own_class = hasattr(composites, kind)
    reading = "AutoTokenizer" if own_class else "AutoProcessor"
    code = ["from peft import PeftModel"] if manifest.target == "peft" else []
    code += [f"from weft.core.composites import {kind}"] if own_class else []
    code += [f"from transformers import {reading if own_class else f'{kind}, {reading}'}", ""]
    if manifest.target == "merged":
        code += [f"model = {kind}.from_pretrained({place})"]
    else:
        own = f", revision={manifest.revision!r}" if manifest.revision else ""
        source = f"{repository!r}, subfolder='base'" if manifest.is_split else f"{manifest.base!r}{own}"
        code += [f"base = {kind}.from_pretrained({source})"]
        code += [f"model = PeftModel.from_pretrained(base, {place})"]
    code += [f"processor = {reading}.from_pretrained({place})"]
    said = (
        "All tasks share these weights." if folder == "." else f"This loads task {task!r}; each has a folder."
    )
    return ["## Load", said, _block("python", *code)]


def _words(manifest: Manifest) -> list[str]:
    rows = []
    for name, task in manifest.tasks.items():
        asked = task.words.get("ask") or task.words.get("prompt", "") + "{text}"
        length, beams = (task.writing.get(key) for key in ("max_new_tokens", "num_beams"))
        rows.append([name, _cell(asked), _cell(task.words.get("system", "")), str(length), str(beams)])
    head = "| task | what is asked | system | most new tokens | beams |\n|---|---|---|---:|---:|"
    return ["## Words", _table(head, rows)]


def _cell(text: str) -> str:
    shown = text.replace("|", "\\|").replace("\n", "\\n")
    return f"`{shown}`" if shown else ""


def _recipe(recipe: Recipe) -> list[str]:
    values = recipe.model_dump(mode="json", include=_KEPT, exclude_defaults=True)
    return ["## Training", _block("yaml", yaml.safe_dump(values, sort_keys=False).rstrip())]


def _limits(manifest: Manifest) -> str:
    errors = [task.error for task in manifest.tasks.values() if task.error is not None]
    said = [
        "Scores hold for the splits they were computed on. Answers were tried with the words above; others may give "
        "worse ones. Nothing was done here against harmful or biased answers of the base model, whose licence and "
        "limits hold."
    ]
    if errors:
        said.append(
            f"Merging changed what the adapted maps return by at most {max(errors):.1e} of the largest value."
        )
    return "\n\n".join(["## Limits", *said])

"""What a run tells MLflow."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from weft.eval.evaluate.kinds import kind_of
from weft.eval.report import inspect_html, tables_in
from weft.eval.serving import log_model
from weft.eval.tracking import Run, check_store, open_run, runs_page, store_uri, ui_command
from weft.eval.tracking.store import store_folder
from weft.train.output.progress import Advance
from weft.train.output.result import RESULT, Result
from weft.train.output.run_files import read_id
from weft.train.output.summary import described
from weft.train.preflight.tasks import TaskData
from weft.train.processes import ONE, Processes
from weft.train.recipe.sections import RunRecipe
from weft.train.recipe.training import Recipe
from weft.train.recipe.variables import expanded
from weft.train.runs.provenance import DataSet, data_sets, source_tags, system_metrics
from weft.train.runs.requests import RECORDS

_PLACES = ("data", "choose_from", "name", "language", "weights")


@contextmanager
def tracked(
    recipe: Recipe, plan: Any, checkpoint: Path | None, origin: Mapping[str, str]
) -> Iterator[Run | None]:
    """Open the run in the tracking store, or resume it; None if the recipe is not tracked."""
    if not recipe.tracking.enabled:
        yield None
        return
    id_file = recipe.folder / "mlflow_run_id"
    run_id = read_id(id_file) if checkpoint is not None and id_file.is_file() else None
    params = {
        "method": recipe.title,
        "seed": recipe.seed,
        "backbone": recipe.backbone.title,
        "tasks": ",".join(recipe.tasks),
        **{f"training.{k}": v for k, v in recipe.training.model_dump(mode="json").items() if k != "mixing"},
        **{f"mixing.{k}": v for k, v in recipe.training.mixing.model_dump(mode="json").items()},
        **_settings(recipe),
        **origin,
    }
    with open_run(
        store=tracking_store(recipe),
        experiment=recipe.tracking.experiment,
        name=recipe.name,
        params=params,
        tags={
            "weft.control": str(recipe.control).lower(),
            "mlflow.note.content": described(recipe, plan),
            **source_tags(),
        },
        parent=recipe.tracking.parent,
        run_id=run_id,
    ) as run:
        if run_id is None:
            run.log_text((recipe.folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml")
            run.log_dict(plan.to_dict(), "plan.json")
            run.log_text(str(plan) + "\n", "plan.txt")
            for data in data_sets(recipe, origin):
                run.log_dataset(data.name, data.digest, data.split, source=data.source, profile=data.profile)
        if run.run_id is not None:
            id_file.write_text(run.run_id, encoding="utf-8")
        yield run


def _settings(recipe: Recipe) -> dict[str, str]:
    """What else of a recipe makes a run what it is: every value of its methods, backbone, tasks and evaluation.

    Paths of files are left out: files are identified by their content.
    """
    values = recipe.model_dump(mode="json")
    methods = values["method"] if isinstance(values["method"], list) else [values["method"]]
    whole = [method if isinstance(method, dict) else {"method": method} for method in methods]
    sections = {f"method.{place}" if place else "method": method for place, method in enumerate(whole)}
    sections |= {f"tasks.{name}": task for name, task in values["tasks"].items()}
    sections |= {name: values[name] for name in ("backbone", "evaluation")}
    found = {
        f"{section}.{key}": value if isinstance(value, str) else json.dumps(value)
        for section, part in sections.items()
        for key, value in part.items()
        if value is not None and key not in _PLACES
    }
    return found | {"blank_images": str(recipe.blank_images).lower()}


def tracking_store(recipe: RunRecipe) -> str | None:
    """Where a run is tracked: the recipe's store, else `MLFLOW_TRACKING_URI`, else a folder beside the runs."""
    if recipe.tracking.store is None and os.environ.get("MLFLOW_TRACKING_URI"):
        return None
    if recipe.tracking.store is None:
        return str(Path(recipe.output) / "mlflow")
    return expanded(recipe.tracking.store, "tracking.store")


def tracking_folder(recipe: RunRecipe) -> Path | None:
    """The folder of an embedded tracking store; None where there is none."""
    return store_folder(tracking_store(recipe)) if recipe.tracking.enabled else None


def where_to_look(recipe: RunRecipe) -> str:
    """Lines that say where MLflow shows a finished run; none if it is not tracked.

    Args:
        recipe: A recipe of any kind.
    """
    if not recipe.tracking.enabled:
        return ""
    store = tracking_store(recipe)
    if store_uri(store).startswith(("http://", "https://")):
        return f"The run in MLflow: {ui_command(store)}\n"  # a server that died meanwhile is not asked
    page = runs_page(store, recipe.tracking.experiment)
    return f"The run in the MLflow UI:\n  {ui_command(store)}\n  {page}\n"


def check_tracking(recipe: Any) -> None:
    """Refuse a tracking store that can never take the run, before the run begins.

    Args:
        recipe: A recipe of any kind.

    Raises:
        TrackingError: See `weft.eval.tracking.check_store`.
    """
    if recipe.tracking.enabled:
        check_store(tracking_store(recipe), recipe.tracking.experiment)


def track_result(
    run: Run | None,
    recipe: Recipe,
    result: Result,
    tasks: Mapping[str, TaskData],
    origin: Mapping[str, str],
) -> None:
    """Log scores, counts, costs and files of a finished run, and the model that it trained."""
    if run is None:
        return
    metrics = {f"test/{name}": value for name, value in result.scores.items()}
    metrics |= {
        "parameters/trainable": result.trainable,
        "parameters/total": result.total,
        "parameters/percent": 100 * result.trainable / result.total,
        "time/seconds": result.seconds,
        "memory/peak_mb": peak_memory_mb(),
    }
    for task, report in result.reports.items():
        for name, value in report["scores"].items():
            if value is not None:
                metrics[f"test/{task}/{name}"] = value
    if recipe.tracking.model:
        log_trained(run, recipe, tasks, metrics, data_sets(recipe, origin))
    else:
        run.log_metrics(metrics)
    run.log_artifacts(recipe.folder / "adapter", "adapter")
    run.log_artifacts(recipe.folder / "predictions", "predictions")
    if result.reports:
        run.log_text(inspect_html(tables_in(recipe.folder), title=recipe.title), "inspection.html")
    run.log_artifacts(recipe.folder / RESULT)


def log_trained(
    run: Run,
    recipe: Recipe,
    tasks: Mapping[str, TaskData],
    metrics: Mapping[str, float],
    data: Sequence[DataSet],
) -> None:
    """Keep what a finished run trained as a model of MLflow, with its scores and the data they were computed on.

    It is one that `mlflow.pyfunc.load_model` loads, and answers questions, judges statements and writes captions, by
    the run's own rules. Where there is nothing to ask (retrieval alone), for runs that see no image, and for language
    models with stored features, it is recipe and adapter alone.

    Args:
        run: The open run.
        recipe: The recipe of the run; its folder holds the adapter.
        tasks: The records, whose types decide what each task can be asked.
        metrics: The scores of the run.
        data: The data sets of the run.
    """
    types = {
        name: kind_of(data[role]).record_type
        for name, data in tasks.items()
        for role in list(data.splits)[:1]
    }
    asked = {name: kind for name, kind in types.items() if kind in RECORDS}
    sets = {each.name: each for each in data}
    linked: dict[str, Any] = {
        "params": {
            "method": recipe.title,
            "backbone": recipe.backbone.title,
            "tasks": ",".join(recipe.tasks),
        },
        "metrics": metrics,
        "datasets": {
            f"test/{name}": (sets[f"{name}/test"].name, sets[f"{name}/test"].digest)
            for name in recipe.tasks
            if f"{name}/test" in sets
        },
        "register": recipe.tracking.register_as,
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        shutil.copytree(recipe.folder / "adapter", folder / "adapter")
        shutil.copy2(recipe.folder / "recipe.yaml", folder)
        if (recipe.folder / "tokenizer").is_dir():
            shutil.copytree(recipe.folder / "tokenizer", folder / "tokenizer")
        if not asked or recipe.blank_images or recipe.backbone.language is not None:
            run.log_model(folder, **linked)
            return
        log_model(
            run,
            adapter=folder,
            loader="weft.train.runs.served:load_predictor",
            tasks=list(asked),
            options={"types": asked, "images": {name: _shown(tasks[name]) for name in asked}},
            linked=linked,
        )


def _shown(data: TaskData) -> int:
    """How many images a record of a task shows."""
    return len(next(iter(data.splits.values()))[0].media_refs())


class Report(TrainerCallback):
    """Hands losses to the tracked run and to the progress bar, and steps to the latter.

    Args:
        run: The tracked run, if there is one.
        advance: Takes the steps done.
        note: Takes a few words each about losses, speed and memory.
        processes: The processes of the run.
    """

    def __init__(
        self, run: Run | None, advance: Advance, note: Callable[..., None], processes: Processes = ONE
    ) -> None:
        self.run, self.advance, self.note, self.processes = run, advance, note, processes

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        self.advance(state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Log losses, rates and validation scores under their own names."""
        if logs and "loss" in logs:
            self.note(*_words(logs))
        if self.run is None or not logs:
            return
        names = {
            "loss": "train/loss",
            "learning_rate": "train/learning_rate",
            "grad_norm": "train/gradient_norm",
            "samples_per_second": "time/samples_per_second",
            "gpu_memory_mb": "memory/gpu_peak_mb",
            "rows_left_out": "train/rows_left_out",
        }
        values = {}
        for name, value in logs.items():
            if name.startswith(("loss/", "validation/")):
                values[f"train/{name}" if name.startswith("loss/") else name] = value
            elif name in names:
                values[names[name]] = value
        if "loss" in logs:
            values |= system_metrics(self.processes, Path(args.output_dir).parent)
        if values:
            self.run.log_metrics(values, step=state.global_step)


def _words(logs: Mapping[str, float]) -> list[str]:
    losses = [
        f"{name.removeprefix('loss/')} {value:.3g}"
        for name, value in logs.items()
        if name.startswith("loss/")
    ]
    memory = logs.get("gpu_memory_mb") or peak_memory_mb()
    speed = logs["samples_per_second"]
    said = f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
    left_out = [f"{logs['rows_left_out']:,} rows left out"] if logs.get("rows_left_out") else []
    return [f"loss {logs['loss']:.4g}", f"{said} samples/s", f"{memory:,.0f} MiB", *losses, *left_out]


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

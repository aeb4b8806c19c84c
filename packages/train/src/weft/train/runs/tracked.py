"""What a run tells MLflow."""

from __future__ import annotations

import json
import os
import shutil
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
from weft.train.runs.provenance import data_sets, peak_memory_mb, source_tags, system_metrics
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
    training = recipe.training.model_dump(mode="json")
    mixing = training.pop("mixing")
    params = {
        **_named(recipe),
        "seed": recipe.seed,
        **{f"training.{key}": value for key, value in training.items()},
        **{f"mixing.{key}": value for key, value in mixing.items()},
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
                run.log_dataset(**data)
        if run.run_id is not None:
            id_file.write_text(run.run_id, encoding="utf-8")
        yield run


def _named(recipe: Recipe) -> dict[str, str]:
    return {"method": recipe.title, "backbone": recipe.backbone.title, "tasks": ",".join(recipe.tasks)}


def _settings(recipe: Recipe) -> dict[str, str]:
    """What else of a recipe makes a run what it is: every value of its methods, backbone, tasks and evaluation.

    Paths of files are left out: files are identified by their content.
    """
    values = recipe.model_dump(mode="json")
    methods = values["method"] if isinstance(values["method"], list) else [values["method"]]
    sections = {
        f"method.{place}" if place else "method": method if isinstance(method, dict) else {"method": method}
        for place, method in enumerate(methods)
    }
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
    """Lines that say where MLflow shows a finished run of any kind; none if it is not tracked."""
    if not recipe.tracking.enabled:
        return ""
    store = tracking_store(recipe)
    if store_uri(store).startswith(("http://", "https://")):
        return f"The run in MLflow: {ui_command(store)}\n"  # a server that died meanwhile is not asked
    page = runs_page(store, recipe.tracking.experiment)
    return f"The run in the MLflow UI:\n  {ui_command(store)}\n  {page}\n"


def check_tracking(recipe: Any) -> None:
    """Refuse a tracking store that can never take the run, of any kind, before it begins.

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
    metrics = {
        **{f"test/{name}": value for name, value in result.scores.items()},
        "parameters/trainable": result.trainable,
        "parameters/total": result.total,
        "parameters/percent": 100 * result.trainable / result.total,
        "time/seconds": result.seconds,
        "memory/peak_mb": peak_memory_mb(),
        **{
            f"test/{task}/{name}": value
            for task, report in result.reports.items()
            for name, value in report["scores"].items()
            if value is not None
        },
    }
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
    data: Sequence[Mapping[str, Any]],
) -> None:
    """Keep what a finished run trained as a model of MLflow, with its scores and the data they were computed on.

    It is one that `mlflow.pyfunc.load_model` loads, and answers questions, judges statements and writes captions, by
    the run's own rules. Where there is nothing to ask (retrieval alone), for runs that see no image, and for language
    models with stored features, it is recipe and adapter alone.
    """
    first = {name: next(iter(data.splits.values())) for name, data in tasks.items() if data.splits}
    types = {name: kind_of(records).record_type for name, records in first.items()}
    asked = {name: kind for name, kind in types.items() if kind in RECORDS}
    tested = {each["name"].removesuffix("/test"): each for each in data if each["split"] == "test"}
    linked: dict[str, Any] = {
        "params": _named(recipe),
        "metrics": metrics,
        "datasets": {f"test/{task}": (own["name"], own["digest"]) for task, own in tested.items()},
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
            options={"types": asked, "images": {name: len(first[name][0].media_refs()) for name in asked}},
            linked=linked,
        )


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
        values = {names[name]: value for name, value in logs.items() if name in names}
        values |= {f"train/{name}": value for name, value in logs.items() if name.startswith("loss/")}
        values |= {name: value for name, value in logs.items() if name.startswith("validation/")}
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

"""How a run scores the records of its tasks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from weft.eval.evaluate.kinds import metric_of
from weft.eval.evaluate.predict import Predictions, predict
from weft.eval.evaluate.processes import shared_batches
from weft.eval.evaluate.rank import rank_answers
from weft.eval.evaluate.scoring import reference, score
from weft.eval.metrics import ScoreReport
from weft.eval.metrics.matches import Matches
from weft.eval.report import record_table
from weft.eval.submissions import save_submission
from weft.train.engine.session import Session
from weft.train.engine.sharding import is_sharded
from weft.train.output.result import write_json
from weft.train.preflight.answers import read_answers
from weft.train.recipe.sections import TaskSection


def evaluate_tasks(session: Session, role: str, folder: Path | None = None) -> dict[str, ScoreReport]:
    """Predict and score every task that has the role.

    Several processes share the batches of a task; given the same weights, predictions and scores are bit for bit those
    of one. The second stage of retrieval is done by each process as a whole; so is everything where the model is
    sharded, so that all ask for each layer at the same time.

    Args:
        session: The recipe, its records and its model.
        role: `validation` or `test`.
        folder: Where predictions are written, per task one JSON file, one table with pictures of some, and the file
            that its benchmark takes; None writes none.

    Returns:
        Task to its report, the same on every process. A split whose answers are hidden, as benchmarks hide those of
        their tests, is predicted and has none.
    """
    reports = {}
    written = folder if session.processes.first else None
    for name, data in session.tasks.items():
        if role not in data:
            continue
        records = data[role]
        predictions = _predicted(session, name, records, role)
        section = session.recipe.tasks[name]
        if written is not None:
            plain = predictions.ranked() if isinstance(predictions, Matches) else predictions
            write_json(written / f"{name}.json", plain)
            if isinstance(predictions, dict):
                save_submission(written, name, section.data.name, predictions)
        if not any(map(reference, records)):
            continue
        reports[name] = _scored(section, predictions, records)
        if written is not None:
            record_table(name, predictions, records, reports[name], written).save(written)
    return reports


def _predicted(session: Session, name: str, records: Any, role: str) -> Predictions:
    section, model = session.recipe.evaluation, session.model
    choices = session.recipe.tasks[name].choose_from
    ask: Callable[..., Predictions] = predict
    if choices is not None:
        ask = partial(rank_answers, candidates=read_answers(name, choices))
    elif section.rerank:
        weighed = {"similarity_weight": section.similarity_weight, "frame_aware": section.frame_aware}
        ask = partial(predict, rerank={"candidates": section.rerank, **weighed})
    share = nullcontext() if is_sharded(model) else shared_batches()
    with share, session.progress.bar(f"{role} {name}", len(records)) as advance:
        return ask(model, name, records, session.batches, batch_size=section.batch_size, progress=advance)


def _scored(section: TaskSection, predictions: Predictions, records: Any) -> ScoreReport:
    """The report of a task, with the headline score of the published metric beside its own scores."""
    report = score(section.metric or metric_of(records), predictions, records, headline=section.headline)
    name = section.published_metric
    if name is None:
        return report
    other = score(name, predictions, records)
    units = {**report.units, name: other.units[other.headline]}
    return replace(report, scores={**report.scores, name: other.value}, units=units)

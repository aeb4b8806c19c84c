"""What a benchmark's files look like, and the registry of benchmarks."""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from weft.data.errors import near_matches
from weft.data.processes.atomic import write_text
from weft.eval.errors import FormatError
from weft.eval.metrics.report import ScoreReport

Predictions = dict[str, Any]
References = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Submission:
    """The files of one benchmark.

    Attributes:
        task: Name, such as `"vqa"`.
        description: What the two files are, in one line.
        read_predictions: Reads an official prediction file into id to prediction; ids become text.
        write_predictions: Returns the text of an official prediction file.
        read_gold: Reads an official annotation file into id to reference; ids become text.
        score: The metric, called with predictions, references and `subset`.
        suffix: Suffix of the prediction file.
        datasets: Data sets of weft.data whose record ids are those of the file.
    """

    task: str
    description: str
    read_predictions: Callable[[Path], Predictions]
    write_predictions: Callable[[Mapping[Any, Any]], str]
    read_gold: Callable[[Path], References]
    score: Callable[..., ScoreReport]
    suffix: str = ".json"
    datasets: tuple[str, ...] = ()


_registered: dict[str, Submission] = {}


def register_submission(submission: Submission) -> Submission:
    """Make a benchmark known under its name, and return it; open to third parties.

    Raises:
        FormatError: Another benchmark has that name.
    """
    if _registered.setdefault(submission.task, submission) is not submission:
        raise FormatError(
            f"`task` must be new, but {submission.task!r} is registered already. Choose another name."
        )
    return submission


def list_submissions() -> dict[str, str]:
    """Name to one-line description of every benchmark, alphabetically."""
    _load()
    return {name: _registered[name].description for name in sorted(_registered)}


def get_submission(task: str) -> Submission:
    """The benchmark of a name.

    Raises:
        FormatError: There is none; the message lists near ones.
    """
    _load()
    if task not in _registered:
        near = near_matches(task, _registered, limit=1)
        raise FormatError(
            f"`task` must be one of {', '.join(sorted(_registered))}, but is {task!r}. "
            + (f"Did you mean {near[0]!r}?" if near else "Choose one of these.")
        )
    return _registered[task]


def save_submission(
    folder: Path | str, name: str, dataset: str, predictions: Mapping[Any, Any]
) -> Path | None:
    """Write predictions as the file that the benchmark of a data set takes.

    Args:
        folder: Where to write.
        name: Name of the file, to which `.submission` and the benchmark's suffix are added.
        dataset: Name of the data set in weft.data.
        predictions: Record id to prediction.

    Returns:
        The file, or None where the data set belongs to no benchmark.
    """
    _load()
    for submission in _registered.values():
        if dataset in submission.datasets:
            target = Path(folder) / f"{name}.submission{submission.suffix}"
            write_text(target, submission.write_predictions(predictions))
            return target
    return None


def write_objects(
    predictions: Mapping[Any, Any], key: str, value: str, as_id: Callable[[Any], Any] = lambda given: given
) -> str:
    """A JSON list of objects with two fields, an id and its prediction, as most servers take predictions."""
    return json.dumps([{key: as_id(given), value: said} for given, said in predictions.items()])


def id_number(given: Any) -> Any:
    """An id as servers want it: a number where it is written as one."""
    return int(given) if str(given).isdigit() else given


def _load() -> None:
    """Import every module beside this one; each registers what it describes."""
    package = importlib.import_module("weft.eval.submissions")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")

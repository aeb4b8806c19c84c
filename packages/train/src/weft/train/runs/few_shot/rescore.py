"""Scoring the saved heads of a finished few-shot run again, from its folder alone."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

from weft.core.few_shot import load_head
from weft.train.errors import RunError
from weft.train.output.progress import Progress
from weft.train.output.result import RESULT
from weft.train.output.run_files import as_written, read_json
from weft.train.recipe.few_shot import FewShotRecipe, label_of
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.bench import Bench, open_benches
from weft.train.runs.few_shot.comparison import Cell, FewShotComparison, together
from weft.train.runs.few_shot.draws import begin, draw


def rescore_few_shot(folder: Path, *, progress: Progress | None = None) -> FewShotComparison:
    """Load every head of a run, check what its features were made from, and score it on every test set.

    Args:
        folder: Folder of the run.
        progress: Where to show progress.

    Returns:
        The scores; the seconds of fitting are those of the run, whose own files stay as they are.

    Raises:
        RunError: If the folder is not that of a finished few-shot run.
        CheckpointError: If a head is damaged, or belongs to another encoder, preprocessing or draw.
    """
    recipe = load_any(folder / "recipe.yaml") if (folder / "recipe.yaml").is_file() else None
    if not isinstance(recipe, FewShotRecipe) or not (folder / RESULT).is_file():
        raise RunError(
            f"`RUN` must be the folder of a finished few-shot run, with recipe.yaml, heads/ and {RESULT}, but {folder} "
            "is not. Give the folder that `weft train` named at its end."
        )
    records = begin(recipe)
    benches = open_benches(recipe, records, folder, progress or Progress())
    saved, labels = read_json(folder / RESULT), [label_of(head) for head in recipe.heads]
    with as_written(folder / RESULT):
        seconds = {
            (cell["head"], cell["shots"], cell["seed"]): float(cell["seconds"]) for cell in saved["cells"]
        }
        notes = tuple(map(str, saved["notes"]))
        for key in product(labels, recipe.shots, recipe.seeds):
            if key not in seconds:
                raise KeyError(f"no result of {key}")
    cells: list[Cell] = []
    for shots, seed in product(recipe.shots, recipe.seeds):
        drawn = {name: draw(splits, shots, seed)[0] for name, splits in records.items()}
        for label in labels:
            found = {
                name: _cell(bench, label, shots, seed, drawn[name].fingerprint())
                for name, bench in benches.items()
            }
            cell = together(found) if recipe.also else found[""]
            cells.append(replace(cell, seconds=seconds[label, shots, seed]))
    return FewShotComparison(recipe.title, folder, cells, notes)


def _cell(bench: Bench, label: str, shots: int, seed: int, split: str) -> Cell:
    head = load_head(bench.place(label, shots, seed), provenance=bench.provenance(split))
    return bench.scored(bench.equipped(head), label, shots, seed)

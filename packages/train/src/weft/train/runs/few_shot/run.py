"""One few-shot run: features once, then every head on every draw, scored, tracked and saved."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from weft.eval.tracking import open_run
from weft.train.errors import RunError
from weft.train.output.folders import claimed, make_run_folder, require_new, require_outside
from weft.train.output.progress import Progress
from weft.train.output.result import RESULT, write_json
from weft.train.recipe.few_shot import FewShotRecipe, label_of
from weft.train.recipe.kept import kept_text
from weft.train.runs.few_shot.bench import open_benches
from weft.train.runs.few_shot.comparison import Cell, FewShotComparison, notes_on_bounds, together
from weft.train.runs.few_shot.draws import begin, check_images, draw
from weft.train.runs.few_shot.features import FEATURES
from weft.train.runs.few_shot.votes import write_votes
from weft.train.runs.tracked import check_tracking, tracking_folder, tracking_store

_PAPER = (
    "Epochs and hyper-parameters were chosen on the test set (selection: paper), as in the papers' code: these "
    "accuracies are no estimate for new images."
)


def execute_few_shot(
    recipe: FewShotRecipe, *, overwrite: bool = False, progress: Progress | None = None
) -> FewShotComparison:
    """Run a few-shot recipe.

    Args:
        recipe: The recipe.
        overwrite: Remove an earlier run of the same name first.
        progress: Where to show progress; nowhere by default.

    Returns:
        All scores; the folder holds `recipe.yaml`, `heads/`, `votes/`, `result.json`, `table.txt`,
        `cells.csv` and `accuracy.png`.

    Raises:
        InUseError: Another process writes this run.
        RunError: The run cannot start.
        WeftError: Data, encoder or features break a rule.
    """
    progress = progress or Progress()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise RunError(
            f"A few-shot recipe must be run by one process, but WORLD_SIZE is {os.environ['WORLD_SIZE']}: its heads "
            "are fitted in seconds, once the features are there. Start weft without a launcher."
        )
    records = begin(recipe)
    grid = list(product(recipe.shots, recipe.seeds))
    draws = {name: {place: draw(records[name], *place) for place in grid} for name in records}
    for name, splits in records.items():
        check_images(splits, draws[name].values())
    with claimed(recipe.folder, "name", otherwise="take name=... for another run"):
        _check_folder(recipe, overwrite)
        return _run(recipe, records, draws, progress)


def _run(
    recipe: FewShotRecipe, records: dict[str, Any], draws: dict[str, dict[Any, Any]], progress: Progress
) -> FewShotComparison:
    grid = list(product(recipe.shots, recipe.seeds))
    benches = open_benches(recipe, records, recipe.folder, progress)
    make_run_folder(recipe.folder, {"recipe.yaml": kept_text(recipe)})
    cells: list[Cell] = []
    with _tracked(recipe) as run:
        with progress.bar(f"heads of {recipe.title}", len(grid) * len(recipe.heads)) as advance:
            for place in grid:
                drawn = {name: bench.features_of(*draws[name][place]) for name, bench in benches.items()}
                for head in recipe.heads:
                    found = {name: bench.cell(head, *place, drawn[name]) for name, bench in benches.items()}
                    cells.append(together(found) if recipe.also else found[""])
                    advance(len(cells))
                    if run is not None:
                        _log_cell(run, cells[-1])
        notes = ((_PAPER,) if recipe.selection == "paper" else ()) + notes_on_bounds(cells)
        comparison = FewShotComparison(recipe.title, recipe.folder, cells, notes)
        _write(comparison)
        for name, bench in benches.items():
            write_votes(bench, draws[name], recipe.folder / "votes" / name)
        if run is not None:
            _log_comparison(run, comparison)
    return comparison


def _check_folder(recipe: FewShotRecipe, overwrite: bool) -> None:
    require_new(recipe.folder, resumes=False, overwrite=overwrite)
    require_outside(recipe.folder, tracking_folder(recipe), "tracking.store")
    require_outside(recipe.folder, Path(recipe.output) / FEATURES, "output/features")
    check_tracking(recipe)


def _write(comparison: FewShotComparison) -> None:
    folder = comparison.folder
    write_json(folder / RESULT, comparison.to_dict())
    (folder / "table.txt").write_text(comparison.text(), encoding="utf-8")
    (folder / "cells.csv").write_text(comparison.to_csv(), encoding="utf-8")
    comparison.plot(folder / "accuracy.png")


@contextmanager
def _tracked(recipe: FewShotRecipe) -> Iterator[Any]:
    if not recipe.tracking.enabled:
        yield None
        return
    params = {
        "encoder": recipe.encoder.name,
        "data": ",".join(part.data.name for part in recipe.parts().values()),
        "heads": ",".join(label_of(head) for head in recipe.heads),
        "shots": ",".join(map(str, recipe.shots)),
        "seeds": ",".join(map(str, recipe.seeds)),
        "selection": recipe.selection,
        "protocol": recipe.protocol,
    }
    with open_run(
        store=tracking_store(recipe),
        experiment=recipe.tracking.experiment,
        name=recipe.name,
        params=params,
        tags={"weft.selection": recipe.selection},
    ) as run:
        run.log_text((recipe.folder / "recipe.yaml").read_text(encoding="utf-8"), "recipe.yaml")
        yield run


def _log_cell(run: Any, cell: Cell) -> None:
    values = {f"{test}/{cell.head}/seed {cell.seed}": accuracy for test, accuracy in cell.accuracies.items()}
    run.log_metrics(values, step=cell.shots)


def _log_comparison(run: Any, comparison: FewShotComparison) -> None:
    for test, head, shots in product(comparison.tests, comparison.heads, comparison.shots):
        mean, spread = comparison.over_seeds(head, shots, test)
        values = {f"{test}/{head}/mean": mean}
        values |= {} if spread is None else {f"{test}/{head}/std": spread}
        run.log_metrics(values, step=shots)
    for name in ("table.txt", "cells.csv", "accuracy.png", RESULT):
        run.log_artifacts(comparison.folder / name)
    if (comparison.folder / "votes").is_dir():
        run.log_artifacts(comparison.folder / "votes", "votes")

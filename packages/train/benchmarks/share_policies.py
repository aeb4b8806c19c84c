"""Sharing policies side by side: on the demo's four tasks, and on five tasks of real files.

`python packages/train/benchmarks/share_policies.py CASE FOLDER` (CASE is `demo` or `real`) trains every policy with
three seeds below FOLDER, leaves out what is there already, and writes `results/share_CASE.json` and the table of
`docs/share.md`. Runs are shortened, see `CASES`. Tests are paired over test records, each scored by its mean over
seeds, and against the first policy.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

from weft.eval.compare import Comparison, significance
from weft.eval.report import tables_in
from weft.train.engine.loading import Collate
from weft.train.objectives import objectives_of
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.open_session import open_session
from weft.train.runs.run import execute
from weft.train.runs.share.measure import Losses

HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "share.md"
SEEDS = (0, 1, 2)
ROWS = 20  # of a batch whose losses are taken


@dataclass(frozen=True)
class Case:
    """Policies on one recipe.

    Attributes:
        recipe: The recipe.
        tasks: Its tasks, in the order of tables.
        changes: What is changed for all runs.
        policies: Name to label, bottleneck size and sharing.
        by_loss: Whether test losses are told instead of scores, for runs too short for these.
    """

    recipe: str
    tasks: tuple[str, ...]
    changes: tuple[str, ...]
    policies: dict[str, tuple[str, int, Any]]
    by_loss: bool = False


GROUPS = {"task": [["vqa", "gqa", "nlvr"], ["caption"]]}
DECODER = {
    "range": "0-1",
    "towers": ["text"],
    "stacks": ["decoder"],
    "down": {"task": [["vqa", "gqa", "caption"], ["nlvr"]]},
    "up": {"task": [["vqa", "gqa"], ["nlvr", "caption"]]},
}
# Every conflict beyond noise separates tasks, whatever it costs.
SEPARATED = {"down": GROUPS, "up": GROUPS, "layers": [DECODER]}
KINDS = {"task": [["easy_vqa", "nlvr"], ["en", "de", "fr"]]}
CASES = {
    "demo": Case(
        "demo/single_adapter",
        ("vqa", "gqa", "nlvr", "caption"),
        (
            "training.steps=240",
            *(f"tasks.{task}.data.sizes.test=400" for task in ("vqa", "gqa", "nlvr", "caption")),
        ),
        {
            "single": ("single", 32, "single"),
            "proposed": ("conflicts separated", 15, SEPARATED),
            "half": ("half", 13, "half"),
            "multiple": ("multiple", 8, "multiple"),
            "narrow": ("single", 15, "single"),
            "wide": ("conflicts separated", 32, SEPARATED),
        },
    ),
    "real": Case(
        "real_tasks/single_adapter",
        ("easy_vqa", "nlvr", "en", "de", "fr"),
        (
            "training.steps=100",
            "training.batch_size=16",
            *(f"tasks.{task}.data.sizes={{test: 200}}" for task in ("easy_vqa", "nlvr", "en", "de", "fr")),
            *(f"tasks.{task}.data.validation=null" for task in ("easy_vqa", "nlvr", "en", "de", "fr")),
            "tasks.easy_vqa.data.test=test",
            "tasks.nlvr.data.test=dev",
            *(f"tasks.{task}.data.test=val" for task in ("en", "de", "fr")),
        ),
        {
            "single": ("single (proposed)", 32, "single"),
            "multiple": ("multiple", 6, "multiple"),
            "kinds": ("names apart from answers", 15, {"down": KINDS, "up": KINDS}),
        },
        by_loss=True,
    ),
}


def recipe_of(case: Case, name: str, seed: int, folder: Path) -> Any:
    """The recipe of a run."""
    label, size, sharing = case.policies[name]
    method = {"method": "bottleneck", "bottleneck_size": size, "scale": 8, "sharing": sharing}
    method["train_full"] = ["visual_embedding", "norms"]
    changes = [
        f"method={json.dumps(method)}",
        f"name={name}-{seed}",
        f"label={json.dumps(label)}",
        f"seed={seed}",
    ]
    changes += [f"output={folder}", "tracking.enabled=false", *case.changes]
    return load_recipe(case.recipe, changes)


def rows_of(case: Case, folder: Path) -> list[dict[str, Any]]:
    """What the runs gave, those that are not there being made."""
    found = []
    for seed in SEEDS:
        for name in case.policies:
            recipe = recipe_of(case, name, seed, folder)
            if not (recipe.folder / "result.json").is_file():
                execute(recipe, overwrite=True)
            values = json.loads((recipe.folder / "result.json").read_text(encoding="utf-8"))
            scores = {task: round(values["scores"][task], 2) for task in case.tasks}
            row = {"name": name, "seed": seed, "trained": values["trainable"], "scores": scores}
            found.append(row | ({"losses": losses_of(case, recipe)} if case.by_loss else {}))
    return found


def losses_of(case: Case, recipe: Any) -> dict[str, list[float]]:
    """The loss of every test record of a run, by task."""
    session = open_session(
        recipe, load_tasks(recipe, ("train", "test")), folder=recipe.folder, adapter=recipe.folder / "adapter"
    )
    session.model.eval()
    losses = Losses(session, objectives_of(session.model, recipe.training, ROWS, session.batches.reader))
    collate, found = Collate(session.batches), {}
    for task in case.tasks:
        records = session.tasks[task]["test"]
        places = range(0, len(records), ROWS)
        pieces = [[records[row] for row in range(start, min(start + ROWS, len(records)))] for start in places]
        with torch.no_grad():
            rows = [losses(collate([(task, one, 0, len(piece)) for one in piece]))[0] for piece in pieces]
        found[task] = [round(float(value), 4) for value in torch.cat(rows)]
    return found


def loss_table(case: Case, rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean test losses and, for all but the first policy, the paired difference with twice its standard error."""
    lines = [f"| sharing | size | trained | {' | '.join(case.tasks)} |", "|---" * (len(case.tasks) + 3) + "|"]
    by_record = {
        (name, task): torch.tensor([row["losses"][task] for row in rows if row["name"] == name]).mean(dim=0)
        for name in case.policies
        for task in case.tasks
    }
    first = next(iter(case.policies))
    for name, (label, size, _) in case.policies.items():
        trained = next(row["trained"] for row in rows if row["name"] == name)
        cells = []
        for task in case.tasks:
            own, other = by_record[name, task], by_record[first, task]
            error = 2 * float((own - other).std()) / len(own) ** 0.5
            beside = "" if name == first else f" ({float((own - other).mean()):+.2f} ± {error:.2f})"
            cells.append(f"{float(own.mean()):.2f}{beside}")
        lines.append(f"| {label} | {size} | {trained:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tests_of(case: Case, rows: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """Every policy against the first, task by task."""
    told = [
        {
            "method": row["name"],
            "label": row["name"],
            "seed": row["seed"],
            "trainable": row["trained"],
            "total": row["trained"],
            "seconds": 0.0,
            "scores": row["scores"],
            "run_id": f"{row['name']}-{row['seed']}",
        }
        for row in rows
    ]
    tables = {one["run_id"]: tables_in(folder / one["run_id"] / "predictions") for one in told}
    found = []
    for (name, task), result in significance(
        Comparison.from_rows(told, case.recipe), "single", tables
    ).items():
        numbers = {"difference": result.difference, "low": result.low, "high": result.high}
        rounded = {key: round(value, 2) for key, value in numbers.items()}
        found.append({"name": name, "task": task, **rounded, "p": round(result.p_value, 4), "n": result.n})
    return sorted(
        found, key=lambda one: (list(case.policies).index(one["name"]), case.tasks.index(one["task"]))
    )


def table(case: Case, rows: Sequence[Mapping[str, Any]], tests: Sequence[Mapping[str, Any]]) -> str:
    """Means and standard deviations over seeds, with marks of the paired test, as Markdown."""
    marks = {(one["name"], one["task"]): "**" * (one["p"] < 0.01) or "*" * (one["p"] < 0.05) for one in tests}
    lines = [
        f"| sharing | size | trained | {' | '.join(case.tasks)} | average |",
        "|---" * (len(case.tasks) + 4) + "|",
    ]
    for name, (label, size, _) in case.policies.items():
        own = [row for row in rows if row["name"] == name]
        cells = [
            _cell([row["scores"][task] for row in own]) + marks.get((name, task), "").replace("*", r"\*")
            for task in case.tasks
        ]
        cells.append(_cell([fmean(row["scores"].values()) for row in own]))
        lines.append(f"| {label} | {size} | {own[0]['trained']:,} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    return f"{fmean(values):.1f} ± {stdev(values):.1f}"


def _with_mean_losses(row: Mapping[str, Any]) -> dict[str, Any]:
    means = {task: round(fmean(losses), 4) for task, losses in row.get("losses", {}).items()}
    return {**row, "losses": means} if means else dict(row)


def write_between(page: Path, name: str, text: str) -> None:
    """Put a text between `<!-- NAME -->` and `<!-- end of NAME -->` of a page."""
    whole = page.read_text(encoding="utf-8")
    start, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = whole.partition(start)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{start}{text}{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    which, place = sys.argv[1], Path(sys.argv[2])
    chosen = CASES[which]
    runs = rows_of(chosen, place)
    paired = tests_of(chosen, runs, place)
    results = {"runs": [_with_mean_losses(row) for row in runs], "against single": paired}
    (HERE / "results" / f"share_{which}.json").write_text(
        json.dumps(results, indent=1) + "\n", encoding="utf-8"
    )
    told = loss_table(chosen, runs) if chosen.by_loss else table(chosen, runs, paired)
    write_between(PAGE, f"policies: {which}", told)

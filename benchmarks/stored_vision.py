"""Step time of training with stored vision features, beside running the frozen tower in every step.

The Qwen2.5-VL of this case spends about half
of a step in its tower; how much it is stands in the result as `tower_share`. Both sides train as `weft train` does:
pictures are opened and resized on both, since their size says how many tokens they are.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure.options import Options
from benchmarks.measure.sides import in_turns, ratio
from benchmarks.vlm_step import side, write_case

CASE = {
    "vocabulary": 2000,
    "width": 256,
    "layers": 3,
    "vision": 256,
    "side": 168,
    "words": 8,
    "batch_size": 8,
    "rank": 8,
    "log_every": 50,
}


def tower_share(folder: Path, steps: int = 6) -> float:
    """Share of a step, forward, backward and without the optimiser, that lies in the tower."""
    from weft.core.testing.processed.stills import without_torchvision
    from weft.train.preflight.tasks import load_tasks
    from weft.train.recipe.loading import load_recipe
    from weft.train.runs.open_session import open_session

    without_torchvision()
    torch.set_num_threads(1)
    recipe = load_recipe(str(folder / "recipe.yaml"))
    session = open_session(recipe, load_tasks(recipe, ("train",)))
    rows = [("vqa", record) for record in session.tasks["vqa"]["train"][: CASE["batch_size"]]]
    model: Any = session.model
    reader: Any = session.batches.reader  # type: ignore[union-attr]
    batch = session.batches.training(rows)["batch"]
    whole, tower = 0.0, 0.0
    for step in range(steps):
        start = time.process_time()
        reader.losses(model, batch).mean.backward()
        between = time.process_time()
        with torch.no_grad():
            reader.with_features(model, batch)
        if step:
            whole, tower = whole + between - start, tower + time.process_time() - between
    return tower / whole


def measure(options: Options) -> dict[str, Any]:
    """Both sides in turns, and the share of the tower."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder, CASE)
        share = tower_share(folder)
        sides = [
            side("weft", sys.executable, folder, "training.vision=stored", call="stored"),
            side("weft", sys.executable, folder, call="computed"),
        ]
        rows = in_turns(sides, rounds=options.rounds, steps=2)
    return {
        "case": CASE,
        "tower_share": round(share, 3),
        "rounds": options.rounds,
        "sides": rows,
        "times_faster": {entry: ratio(rows, "computed", "stored", entry) for entry in ("cpu_ms", "wall_ms")},
    }

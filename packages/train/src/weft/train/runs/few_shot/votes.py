"""Why the heads of a run chose what they chose: tables and pictures of the cached images that voted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from weft.core.few_shot import load_head
from weft.eval.report.votes import votes_picture
from weft.train.recipe.few_shot import label_of
from weft.train.runs.few_shot.bench import Bench

_IMAGES, _VOTERS = 4, 5


def write_votes(bench: Bench, draws: dict[tuple[int, int], Any], folder: Path) -> None:
    """Explain a few test images, spread over the test set, by every head with a cache that a bench fitted and saved.

    The heads of the most shots and the first seed are taken; each gives `HEAD.txt` and `HEAD.png` in the folder.
    """
    recipe, records = bench.recipe, bench.records
    shots, seed = max(recipe.shots), recipe.seeds[0]
    train, _ = draws[shots, seed]
    test = next(iter(records.test.values()))
    count = min(_IMAGES, len(test))
    rows = [place * len(test) // count for place in range(count)]
    features = bench.extractor.plain(test, "test images")[rows]
    names = records.class_names[: records.num_base]
    for label in map(label_of, recipe.heads):
        head = load_head(bench.place(label, shots, seed))
        if not hasattr(head, "cache"):
            continue
        explanations = head.explain(features, top=_VOTERS)
        folder.mkdir(parents=True, exist_ok=True)
        tables = [
            f"{test[row].id} ({test[row].class_name})\n{why.table(names)}\n"
            for row, why in zip(rows, explanations, strict=True)
        ]
        (folder / f"{label}.txt").write_text("\n".join(tables), encoding="utf-8")
        cached = {vote.sample: train[vote.sample].image.image() for why in explanations for vote in why.votes}
        shown = [cached.get(sample) for sample in range(len(train))]
        images = [test[row].image.image() for row in rows]
        votes_picture(images, explanations, shown, names, folder / f"{label}.png")

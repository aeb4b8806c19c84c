"""The shipped recipes on the real files, where they are at hand."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from weft.data import load_dataset
from weft.train.recipe.loading import load_recipe
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute


@pytest.mark.slow
def test_one_adapter_answers_easy_vqa(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "vzhou842+easy-VQA"
    changes = [f"output={tmp_path}", "tracking.enabled=false", f"tasks.easy_vqa.data.root={root}"]
    result = execute(load_recipe("easy_vqa/single_adapter", changes))
    assert result.reports["easy_vqa"]["n"] == len(
        json.loads((root / "easy_vqa/data/test/questions.json").read_text())
    )
    assert result.scores["easy_vqa"] >= 95
    assert result.trainable / result.total < 0.08
    assert rescore(result.folder).scores == result.scores


def test_nlvr_scores_are_those_of_the_official_rule(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "lil-lab+nlvr" / "nlvr"
    changes = [f"output={tmp_path}", "tracking.enabled=false", f"tasks.nlvr.data.root={root}"]
    changes += ["training.steps=2", "tasks.nlvr.data.sizes={train: 64, test: 200}"]
    result = execute(load_recipe("nlvr/single_adapter", changes))
    predictions = json.loads((result.folder / "predictions" / "nlvr.json").read_text())
    records = load_dataset("nlvr", root=root, split="dev")[:200]
    # The official script: a sentence is consistent if all of its scenes are judged right.
    right = {r.id: predictions[r.id] == str(r.label).lower() for r in records}
    by_sentence: dict[str, list[bool]] = defaultdict(list)
    for record in records:
        by_sentence[record.extra["identifier"].split("-")[0]].append(right[record.id])
    scores = result.reports["nlvr"]["scores"]
    assert rescore(result.folder).reports["nlvr"]["scores"] == scores
    assert scores["accuracy"] == pytest.approx(100 * sum(right.values()) / 200)
    assert scores["consistency"] == pytest.approx(
        100 * sum(map(all, by_sentence.values())) / len(by_sentence)
    )


@pytest.mark.slow
def test_nlvr_stays_at_the_majority_as_the_recipe_says(realdata: Path, tmp_path: Path) -> None:
    root = realdata / "lil-lab+nlvr" / "nlvr"
    changes = [f"output={tmp_path}", "tracking.enabled=false", f"tasks.nlvr.data.root={root}"]
    result = execute(load_recipe("nlvr/single_adapter", changes))
    labels = [r.label for r in load_dataset("nlvr", root=root, split="dev")]
    majority = 100 * max(sum(labels), len(labels) - sum(labels)) / len(labels)
    assert abs(result.scores["nlvr"] - majority) < 8

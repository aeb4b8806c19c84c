"""Several processes score a finished run, and extract features, together: to the last bit what one does alone."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

from weft.data.features.store import FeatureStore
from weft.train.cli import console
from weft.train.errors import RunError
from weft.train.output.progress import PlainProgress, Progress
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.runs.extract import extract_stores
from weft.train.runs.few_shot.run import execute_few_shot
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute

needs_gloo = pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")
RESCORED = """
import json, sys
from pathlib import Path
from weft.eval.evaluate import predict as evaluation
from weft.train.engine import scoring
from weft.train.processes import join_processes
from weft.train.runs.rescore import rescore

seen, predict = {}, scoring.predict

def kept(model, task, *arguments, **options):
    seen[task] = predict(model, task, *arguments, **options)
    return seen[task]

scoring.predict = kept
result = rescore(Path(sys.argv[1]))
rank = join_processes().rank
Path(sys.argv[2], f"{rank}.json").write_text(json.dumps([result.scores, result.reports, seen]))
"""


def together(*words: str, processes: int = 2) -> str:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*launcher, "--nproc-per-node", str(processes), *words],
        capture_output=True,
        text=True,
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@needs_gloo
@pytest.mark.slow
def test_two_processes_score_a_run_as_one_does(values: dict[str, Any], tmp_path: Path) -> None:
    # Thirteen records in batches of four: two for one process and two for the other, one of a single record.
    values["evaluation"] = {"batch_size": 4}
    values["tasks"]["vqa"]["data"]["test_options"]["size"] = 13
    result = execute(load_recipe(values))
    alone = rescore(result.folder)
    script = tmp_path / "rescored.py"
    script.write_text(RESCORED)
    together(str(script), str(result.folder), str(tmp_path))
    predictions = {
        task: json.loads((result.folder / "predictions" / f"{task}.json").read_text())
        for task in ("vqa", "nlvr")
    }
    expected = json.loads(json.dumps([alone.scores, alone.reports, predictions]))
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == expected
    weft = Path(sys.executable).with_name("weft")
    printed = together("--no-python", str(weft), "evaluate", str(result.folder))
    assert printed.count("average") == 1
    assert f"{alone.scores['average']:.2f}" in printed


@needs_gloo
@pytest.mark.slow
def test_two_processes_extract_the_store_that_one_does(values: dict[str, Any], tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(values))
    extract_stores(load_recipe(values), tmp_path / "one")
    weft = Path(sys.executable).with_name("weft")
    printed = together("--no-python", str(weft), "features", str(recipe), "--store", str(tmp_path / "two"))
    assert printed.count("data.features=") == 2
    for task in ("vqa", "nlvr"):
        one, two = (FeatureStore(tmp_path / name / task) for name in ("one", "two"))
        assert one.key == two.key
        names = sorted(path.name for path in one.path.iterdir())
        assert names == sorted(path.name for path in two.path.iterdir())
        assert all((one.path / name).read_bytes() == (two.path / name).read_bytes() for name in names)


def test_only_the_first_process_shows_progress(monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert type(console.progress()) is Progress
    monkeypatch.setenv("RANK", "0")
    shown = console.progress()
    assert isinstance(shown, PlainProgress), "the tests run without a terminal"
    with shown.bar("work", 4) as advance:
        advance(4)
    assert capsys.readouterr().err.startswith("work: 4 in ")


def test_a_few_shot_recipe_stays_in_one_process(monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    recipe = load_any("tip_adapter/eurosat", [f"output={tmp_path}"])
    assert recipe is not None
    with pytest.raises(RunError, match="must be run by one process, but WORLD_SIZE is 2"):
        execute_few_shot(recipe)

"""`weft share` from a recipe to a policy that the recipe takes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import yaml
from safetensors.torch import load_file, save_file

from weft.core import plan
from weft.train.backbones.loading import planned_model
from weft.train.cli import main
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import train_session
from weft.train.runs.share.command import Limit, read_limit, share
from weft.train.runs.share.confirm import confirm_points
from weft.train.runs.share.measure import measure as measure_with

QUICK = {"steps": 2, "batches": 4}


def measure(recipe, **options):
    return measure_with(recipe, train_session, **options)


@pytest.fixture
def recipe(values, tmp_path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def test_a_recipe_is_measured_and_told(recipe, capsys):
    main_ends(["share", str(recipe), "--steps", "2", "--batches", "4"], 0)
    shown = capsys.readouterr().out
    folder = recipe.parent / "runs" / "tiny.share"
    assert "| vqa and nlvr | " in shown
    assert "of the recipe's 6 steps" in shown
    told = json.loads((folder / "share.json").read_text())
    assert told["tasks"] == ["vqa", "nlvr"]
    assert told["cost"]["whole_steps"] == 6
    assert (folder / "share.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "share.md").read_text().startswith("# What the tasks of tiny can share")


def main_ends(words, code):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert int(ended.value.code or 0) == code


def test_a_measurement_is_kept_and_refused_to_other_values(recipe):
    first = measure(load_recipe(recipe), **QUICK)
    again = measure(load_recipe(recipe), **QUICK)
    for one, other in zip(first.measurement.products, again.measurement.products, strict=True):
        assert (one.between == other.between).all()
    assert again.cost["train_seconds"] == first.cost["train_seconds"]
    with pytest.raises(
        RunError, match=r"must resume with what it was begun with, but .* --batches was 4 and is 5"
    ):
        measure(load_recipe(recipe), steps=2, batches=5)
    assert measure(load_recipe(recipe), steps=2, batches=5, overwrite=True).measurement.batches == 5


def test_a_measurement_that_was_killed_before_it_noted_its_cost_resumes(recipe):
    first = measure(load_recipe(recipe), **QUICK)
    for cost in (None, {"train_steps": 2.0, "train_seconds": 1.0}):
        (first.folder / "cost.json").unlink()
        if cost is not None:
            (first.folder / "cost.json").write_text(json.dumps(cost))
        again = measure(load_recipe(recipe), **QUICK)
        assert {"measure_seconds", "measure_memory_mb"} <= again.cost.keys()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("made_from.json", b"[]"),
        ("cost.json", b'{"train_seconds": null}'),
        ("0-of-1-measured.safetensors", b"xx"),
        ("0-of-1-measured.safetensors", None),
    ],
    ids=["list", "null", "cut", "too many batches"],
)
def test_a_damaged_measurement_is_named(recipe, name, content):
    folder = measure(load_recipe(recipe), **QUICK).folder
    if content is None:
        state = load_file(folder / name)
        save_file({**state, "done": torch.tensor(-3)}, folder / name)
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} must be as weft wrote it, but cannot be read"):
        measure(load_recipe(recipe), **QUICK)


def test_a_policy_fits_the_recipe_and_the_limit(recipe, monkeypatch):
    monkeypatch.setattr("weft.train.runs.share.command.can_be_said", lambda measured: True)
    found = share(str(recipe), [], **QUICK, limit=Limit(percent=3))
    folder = found.measured.folder
    policy = yaml.safe_load((folder / "policy.yaml").read_text())
    merged = {**yaml.safe_load(recipe.read_text()), **policy, "name": "proposed"}
    (recipe.parent / "proposed.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
    proposed = load_recipe(recipe.parent / "proposed.yaml")
    planned = plan(planned_model(proposed.backbone), proposed.method, list(proposed.tasks))
    assert 2 < planned.percent <= 3
    assert "sharing" in found.text


@pytest.mark.parametrize(
    ("trained", "slots", "message"),
    [
        ("5%", 3, "`--trained` must be left out with `--slots`"),
        ("much", None, r"`--trained` must be a share .* but is 'much'. Write for instance 5%"),
        ("120%", None, "between 0% and 100%"),
    ],
)
def test_limits_that_make_no_sense_are_refused(trained, slots, message):
    with pytest.raises(RecipeError, match=message):
        read_limit(trained, slots)


def test_a_limit_below_sharing_everything_is_refused_before_anything_is_trained(recipe):
    with pytest.raises(
        RunError, match=r"`--trained` must leave room for weights that all tasks share, which are"
    ):
        share(str(recipe), [], **QUICK, limit=Limit(percent=0.001))
    with pytest.raises(RunError, match=r"`--slots` must be at least \d+, one for each part"):
        share(str(recipe), [], **QUICK, limit=Limit(slots=1))
    assert not (recipe.parent / "runs").exists()


def test_one_task_alone_is_refused(recipe, values):
    values["tasks"].pop("nlvr")
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(RunError, match="`tasks` must be two or more to share anything"):
        measure(load_recipe(recipe))


def test_a_method_without_units_is_refused(recipe):
    with pytest.raises(RunError, match="`method` must have units with trained weights for tasks to share"):
        measure(load_recipe(recipe, ["method={method: full}"]))


def test_policies_and_presets_are_confirmed_on_validation_alone(recipe, monkeypatch, capsys):
    def run(command, **kwargs):
        with pytest.raises(SystemExit) as ended:
            main(["train", *command[3:]])
        return SimpleNamespace(returncode=int(ended.value.code or 0))

    monkeypatch.setattr("weft.train.runs.sweep.subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr("weft.train.runs.share.command.can_be_said", lambda measured: True)
    words = ["share", str(recipe), "--steps", "2", "--batches", "4", "--confirm", "1", "--confirm-steps", "2"]
    store = ["tracking.enabled=true", f"tracking.store={recipe.parent / 'mlflow'}"]
    main_ends([*words, "--seeds", "2", *store], 0)
    shown = capsys.readouterr().out
    runs = recipe.parent / "runs"
    for label in ("policy-1", "single", "half", "multiple"):
        for seed in (0, 1):
            kept = load_recipe(runs / f"tiny-confirm-{label}-{seed}" / "recipe.yaml")
            assert {task.data.test for task in kept.tasks.values()} == {"validation"}
            assert kept.tracking.parent is not None
            assert kept.training.steps == 2
        assert label.replace("-", " ") in shown
    assert (runs / "tiny.share" / "confirm.png").read_bytes().startswith(b"\x89PNG")
    assert (runs / "tiny.share" / "confirm.csv").is_file()
    assert "against policy 1, paired over samples" in shown


def test_without_validation_splits_nothing_is_confirmed_and_nothing_measured(recipe, values):
    del values["tasks"]["nlvr"]["data"]["validation"]
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(
        RecipeError, match=r"`--confirm` needs `tasks.nlvr.data.validation`, because nothing is chosen"
    ):
        confirm_points(str(recipe), [], [], seeds=1)
    main_ends(["share", str(recipe), "--confirm", "1"], 2)
    assert not (recipe.parent / "runs").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or not dist.is_gloo_available(), reason="needs gloo")
def test_two_processes_measure_what_one_does(recipe):
    whole = measure(load_recipe(recipe), **QUICK)
    program = "from weft.train.cli import main; main()"
    script = recipe.parent / "weft_share.py"
    script.write_text(program)
    words = [str(recipe), "--steps", "2", "--batches", "4", "name=two"]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        str(script),
    ]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "share", *words], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads((recipe.parent / "runs" / "two.share" / "share.json").read_text())
    one = share(str(recipe), [], **QUICK)
    alone = json.loads((one.measured.folder / "share.json").read_text())
    assert whole.measurement.batches == told["batches"]
    for row, other in zip(told["affinity"], alone["affinity"], strict=True):
        assert row == pytest.approx(other, abs=1e-3)

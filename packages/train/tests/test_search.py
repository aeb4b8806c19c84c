"""`weft sweep --search`: Optuna draws values, validation chooses, and an interrupted search resumes."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from weft.train.cli import main
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.runs.search import Trial, read_ranges, run_search
from weft.train.runs.sweep import Point

RANGES = ["training.learning_rate=1e-3..1e-1:log", "method.bottleneck_size=2,4"]


@pytest.fixture
def path(values: dict[str, Any], tmp_path: Path) -> Path:
    values["training"] |= {"steps": 2, "evaluate_every": 1}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been run; the validation is best at a rate of 0.01, and a size of 2 fails at rates above 0.05."""
    found: list[Any] = []

    def run(source: str, point: Point, parent: str | None, *, fresh: bool) -> bool:
        found.append(point.recipe)
        rate, size = point.recipe.training.learning_rate, point.recipe.method["bottleneck_size"]
        if size == 2 and rate > 0.05:
            return False
        best = point.recipe.folder / "checkpoints" / "best"
        best.mkdir(parents=True, exist_ok=True)
        (best / "score").write_text(repr(100 - 1e4 * abs(rate - 0.01) + point.recipe.seed))
        return True

    monkeypatch.setattr("weft.train.runs.sweep.run_point", run)
    return found


def test_ranges_are_read_as_distributions():
    found = read_ranges(["a.b=1e-4..1e-2:log", "c=1..5", "d=x,y", "e=0.5..1"])
    assert (found["a.b"].low, found["a.b"].high, found["a.b"].log) == (1e-4, 1e-2, True)
    assert (found["c"].low, found["c"].high, type(found["c"]).__name__) == (1, 5, "IntDistribution")
    assert found["d"].choices == ("x", "y")
    assert (found["e"].low, found["e"].high) == (0.5, 1.0)


@pytest.mark.parametrize("entry", ["a", "a=", "=1..2", "a=2..1", "a=x..y", "a=1..2:exp", "a=0..1:log"])
def test_a_range_that_is_none_is_refused(entry):
    with pytest.raises(RecipeError, match=r"`--search` must be `key\.sub=low\.\.high`"):
        read_ranges([entry])
    with pytest.raises(RecipeError, match="each key comes once"):
        read_ranges(["a=1..2", "a=1..2"])


def test_the_validation_of_a_trial_is_the_mean_over_its_seeds(path, started):
    found = run_search(str(path), [], read_ranges(RANGES), trials=12, seeds=(0, 2))
    assert [trial.number for trial in found] == list(range(12))
    assert len(started) == 24
    for trial in found:
        rate, size = trial.values["training.learning_rate"], trial.values["method.bottleneck_size"]
        expected = None if size == 2 and rate > 0.05 else 101 - 1e4 * abs(rate - 0.01)
        assert trial.validation == (None if expected is None else pytest.approx(expected))
    names = [recipe.name for recipe in started[:4]]
    assert names == [
        "tiny-trial-0-seed-0",
        "tiny-trial-0-seed-2",
        "tiny-trial-1-seed-0",
        "tiny-trial-1-seed-2",
    ]
    assert started[0].label == started[1].label != started[2].label


def test_a_search_goes_on_where_it_was_interrupted(path, started, monkeypatch):
    ranges = read_ranges(RANGES)
    first = run_search(str(path), [], ranges, trials=2)

    def killed(*arguments: Any, **options: Any) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("weft.train.runs.sweep.run_point", killed)
        with pytest.raises(KeyboardInterrupt):
            run_search(str(path), [], ranges, trials=3)
    before = len(started)
    found = run_search(str(path), [], ranges, trials=4)
    assert found[:2] == first
    assert [recipe.name for recipe in started[before:]] == ["tiny-trial-2-seed-0", "tiny-trial-3-seed-0"]


@pytest.mark.parametrize(
    ("changes", "entries", "seeds", "told"),
    [
        (["training.steps=3"], RANGES, (0,), r"training\.steps was 2 and is 3"),
        (
            ["tasks.vqa.data.options.size=32"],
            RANGES,
            (0,),
            r"data\.vqa\.train was 40 records, sha256 \w{12} and is 32",
        ),
        ([], RANGES[:1], (0,), r"--search method\.bottleneck_size was 'Categorical.*' and is absent"),
        ([], RANGES, (0, 1), r"--seeds was \[0\] and is \[0, 1\]"),
    ],
    ids=["recipe", "data", "ranges", "seeds"],
)
def test_a_search_goes_on_only_with_what_it_was_begun_with(path, started, changes, entries, seeds, told):
    first = run_search(str(path), [], read_ranges(RANGES), trials=2)
    other = {"ranges": read_ranges(entries), "seeds": seeds, "trials": 2}
    with pytest.raises(RunError, match=rf"of 'tiny'.*{told}.*--overwrite to start this one over"):
        run_search(str(path), changes, **other)
    assert len(started) == 2
    assert run_search(str(path), [], read_ranges(RANGES), trials=2) == first
    run_search(str(path), changes, **other, overwrite=True)
    assert len(started) == 2 + 2 * len(seeds), "every trial is run again"
    with pytest.raises(RunError, match="of 'tiny'"):
        run_search(str(path), [], read_ranges(RANGES), trials=2)


def test_a_trial_takes_no_run_of_another_recipe(path, monkeypatch):
    fresh = []

    def run(source: str, point: Point, parent: str | None, **how: bool) -> bool:
        fresh.append(how["fresh"])
        best = point.recipe.folder / "checkpoints" / "best"
        best.mkdir(parents=True, exist_ok=True)
        (best / "score").write_text("1.0")
        return True

    monkeypatch.setattr("weft.train.runs.sweep.run_point", run)
    stray = load_recipe(str(path), ["name=tiny-trial-0-seed-0"])
    execute(stray)
    with pytest.raises(RunError, match=r"tiny-trial-0-seed-0 is of another: label was None.*--overwrite"):
        run_search(str(path), [], read_ranges(RANGES), trials=1)
    assert not fresh
    run_search(str(path), [], read_ranges(RANGES), trials=1, overwrite=True)
    assert fresh == [True]


def test_what_cannot_be_searched_is_said_before_any_run(path, started, monkeypatch, capsys):
    with pytest.raises(RecipeError, match=r"needs `training\.evaluate_every`"):
        run_search(str(path), ["training.evaluate_every=0"], read_ranges(RANGES), trials=1)
    with pytest.raises(RecipeError, match=r"training\.learning_rate: Input should be greater than 0"):
        run_search(str(path), [], read_ranges(["training.learning_rate=-1.0..1.0"]), trials=1)
    with pytest.raises(RunError, match=r"none of 2 did\..*tiny-trial-0-seed-0\.log"):
        run_search(
            str(path),
            [],
            read_ranges(["training.learning_rate=0.06..0.1", "method.bottleneck_size=2,2"]),
            trials=2,
        )
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--grid", "seed=0,1", "--search", RANGES[0]])
    assert ended.value.code == 2
    assert "must be left out with `--search`" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(RunError, match=r"pip install optuna"):
        read_ranges(RANGES)


def test_the_command_prints_the_trials(path, monkeypatch, capsys):
    def run(command: list[str], **options: Any) -> Any:
        with pytest.raises(SystemExit) as ended:
            main(["train", *command[3:]])
        return SimpleNamespace(returncode=int(ended.value.code or 0))

    # Others, such as `platform`, start processes too: theirs are real.
    monkeypatch.setattr("weft.train.runs.sweep.subprocess", SimpleNamespace(run=run))
    with pytest.raises(SystemExit) as ended:
        main(["sweep", str(path), "--search", RANGES[0], "--trials", "2"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "learning_rate" in printed
    assert "validation" in printed
    folder = Path(load_recipe(str(path)).output)
    scores = [
        float((folder / f"tiny-trial-{k}-seed-0" / "checkpoints" / "best" / "score").read_text())
        for k in (0, 1)
    ]
    assert all(f"{score:.2f}" in printed for score in scores)
    assert Trial(0, {}, scores[0]).validation == scores[0]

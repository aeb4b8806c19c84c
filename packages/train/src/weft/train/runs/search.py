"""A search over the values of a recipe by Optuna: trials are compared by validation alone, every run is a process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from weft.train.errors import RecipeError, RunError
from weft.train.output.folders import claimed
from weft.train.output.progress import Progress
from weft.train.output.run_files import as_written
from weft.train.preflight.learned import load_learnable
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.plain_yaml import read_plain_yaml
from weft.train.recipe.training import Recipe
from weft.train.runs.origin import differences, in_words, origin_of, settings_of
from weft.train.runs.sweep import Point, run_points, runs_to_start_over, sweep_parent, sweep_points

_MADE_FROM = "made_from"


@dataclass(frozen=True)
class Trial:
    """One set of values.

    Attributes:
        number: Its number, from 0.
        values: Key to value.
        validation: Mean over the seeds of the best validated average; None if a run failed.
    """

    number: int
    values: Mapping[str, Any]
    validation: float | None


def read_ranges(entries: Sequence[str]) -> dict[str, Any]:
    """Read `key.sub=low..high`, `key.sub=low..high:log` and `key.sub=value,value` as distributions of Optuna.

    Two whole numbers give whole numbers.

    Raises:
        RecipeError: If an entry is none of these, or a key comes twice.
        RunError: If Optuna is not installed.
    """
    distributions = _optuna().distributions
    ranges: dict[str, Any] = {}
    for entry in entries:
        key, _, text = entry.partition("=")
        span, _, scale = text.partition(":")
        low, dots, high = span.partition("..")
        try:
            if key in ranges or not key or not text:
                raise ValueError("each key comes once, with a range or values")
            if not dots:
                ranges[key] = distributions.CategoricalDistribution(read_plain_yaml(f"[{text}]"))
                continue
            if scale not in ("", "log"):
                raise ValueError("a range may end in :log and nothing else")
            ends = [read_plain_yaml(end) for end in (low, high)]
            whole = all(isinstance(end, int) for end in ends)
            kind = distributions.IntDistribution if whole else distributions.FloatDistribution
            ranges[key] = kind(*(ends if whole else map(float, ends)), log=scale == "log")
        except (ValueError, TypeError, yaml.YAMLError) as error:
            raise RecipeError(
                f"`--search` must be `key.sub=low..high`, `key.sub=low..high:log` or `key.sub=value,value`, but is "
                f"{entry!r}: {str(error).rstrip('.')}. Write for instance training.learning_rate=1e-4..1e-2:log."
            ) from None
    return ranges


def run_search(
    source: str,
    overrides: Sequence[str],
    ranges: Mapping[str, Any],
    *,
    trials: int,
    seeds: Sequence[int] = (0,),
    jobs: int = 1,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> list[Trial]:
    """Run trials until there are so many; a search that was interrupted resumes when it is started again.

    The study is in `OUTPUT/NAME.search.db`. Values are drawn by Optuna's tree-structured Parzen estimator from the
    validation averages of the trials before; test scores are reported and never choose. In MLflow the runs are children
    of one.

    Args:
        source: The recipe; it must validate (`training.evaluate_every`).
        overrides: Changes that all runs have.
        ranges: See `read_ranges`.
        trials: Trials in all.
        seeds: Seeds of every trial.
        jobs: Seeds at a time; trials follow one another.
        overwrite: Start over what was begun with another recipe, other data, ranges or seeds.
        progress: Where to show progress.

    Returns:
        The trials, in order.

    Raises:
        RecipeError: If the recipe does not validate, or an end of a range makes no valid recipe.
        RunError: If Optuna is not installed, the study was begun with something else and `overwrite` is false, or every
            trial failed.
    """
    base = _base(source, overrides, ranges)
    axes = {key: [str(spread)] for key, spread in ranges.items()}
    failed: list[str] = []
    with claimed(Path(base.output) / f"{base.name}.sweep", "name", otherwise="take name=... for another one"):
        study = _study(base, ranges, seeds, overwrite)
        with (
            sweep_parent(base, base.name, axes) as parent,
            (progress or Progress()).bar(f"search {base.name}", trials) as advance,
        ):
            for number in range(trials):
                if number == len(study.trials):
                    study.ask(dict(ranges))
                trial = study.trials[number]
                if not trial.state.is_finished():
                    points = _points(source, overrides, number, trial.params, seeds)
                    ill = run_points(source, points, parent, runs_to_start_over(points, overwrite), jobs=jobs)
                    failed += ill
                    if ill:
                        study.tell(number, state=_optuna().trial.TrialState.FAIL)
                    else:
                        study.tell(number, fmean(map(validated, points)))
                advance(number + 1)
    return _ended(study, trials, failed)


def _ended(study: Any, trials: int, failed: Sequence[str]) -> list[Trial]:
    done = [Trial(trial.number, dict(trial.params), trial.value) for trial in study.trials[:trials]]
    if all(trial.validation is None for trial in done):
        raise RunError(
            f"A trial of the search must end well, but none of {len(done)} did. Their output is in "
            f"{', '.join(failed) or 'their logs'}. Fix the cause, and search under another name."
        )
    return done


def _base(source: str, overrides: Sequence[str], ranges: Mapping[str, Any]) -> Recipe:
    """The recipe that is searched, with both ends of every range tried."""
    base = load_recipe(source, list(overrides))
    if not base.training.evaluate_every:
        raise RecipeError(
            "`--search` needs `training.evaluate_every`, because trials are compared by their validation, but it is 0. "
            "Set it, and a validation split for every task."
        )
    for values in _ends(ranges):
        load_recipe(source, [*overrides, *_changes(values)])
    return base


def validated(point: Point) -> float:
    """The best average of the official scores that a run had on its validation splits."""
    file = point.recipe.folder / "checkpoints" / "best" / "score"
    with as_written(file):
        return float(file.read_text(encoding="utf-8"))


def _points(
    source: str, overrides: Sequence[str], number: int, values: Mapping[str, Any], seeds: Sequence[int]
) -> list[Point]:
    base = load_recipe(source, list(overrides))
    told = ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in values.items())
    own = [f"name={base.name}-trial-{number}", f"label={_as_yaml(f'{base.title}, {told}')}"]
    return sweep_points(source, [*overrides, *_changes(values), *own], {"seed": list(seeds)})


def _changes(values: Mapping[str, Any]) -> list[str]:
    return [f"{key}={_as_yaml(value)}" for key, value in values.items()]


def _as_yaml(value: Any) -> str:
    """A value on one line, whatever its length."""
    return yaml.safe_dump(value, width=math.inf, default_flow_style=True).partition("\n")[0]


def _ends(ranges: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The first and the last value of every range, each with the first ones of the others."""
    pairs = {
        key: list(spread.choices) if hasattr(spread, "choices") else [spread.low, spread.high]
        for key, spread in ranges.items()
    }
    for key, values in pairs.items():
        for value in values:
            yield {other: ends[0] for other, ends in pairs.items()} | {key: value}


def _study(base: Recipe, ranges: Mapping[str, Any], seeds: Sequence[int], overwrite: bool) -> Any:
    """The study of a search, new or resumed; its trials are compared, so one recipe and its data made all."""
    optuna = _optuna()
    Path(base.output).mkdir(parents=True, exist_ok=True)
    storage = f"sqlite:///{(Path(base.output) / f'{base.name}.search.db').absolute()}"
    made_from = {
        **settings_of(base),
        **origin_of(base, load_learnable(base)),
        "--seeds": list(seeds),
        **{f"--search {key}": str(spread) for key, spread in ranges.items()},
    }

    def opened() -> Any:
        return optuna.create_study(
            study_name=base.name, storage=storage, direction="maximize", load_if_exists=True
        )

    study = opened()
    if study.trials or _MADE_FROM in study.user_attrs:
        differing = differences(study.user_attrs.get(_MADE_FROM, {}), made_from)
        if differing and not overwrite:
            raise RunError(
                f"A search must resume with what it was begun with, but of {base.name!r} {in_words(differing)}. Take "
                "name=... for another search, or --overwrite to start this one over."
            )
        if differing:
            optuna.delete_study(study_name=base.name, storage=storage)
            study = opened()
    study.set_user_attr(_MADE_FROM, made_from)
    # A search that resumes must not draw again what it drew first.
    study.sampler = optuna.samplers.TPESampler(seed=base.seed + len(study.trials))
    return study


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise RunError("`--search` needs Optuna. Install it with: pip install optuna") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna

"""Reading comparison rows from the runs that training logged."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.eval.compare.row import Row
from weft.eval.errors import ComparisonError, shown
from weft.eval.tracking.store import client, database_of, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TEST = "test/"
_AVERAGE = "test/average"
_CONTROL = "weft.control"
_PAGE = 1000
_DIGEST = ", sha256 "


def read_rows(store: Path | str | None, experiment: str) -> list[Row]:
    """Read the runs of an experiment that carry test scores.

    Expected of a run: parameters `method` and `seed`; metrics `test/<task>` (0..100), `parameters/trainable`,
    `parameters/total`, `time/seconds`, `memory/peak_mb`; tag `weft.control` = "true" for baselines and
    `weft.label` for a name in print.

    Seeds of one entry are runs whose parameters differ in `seed` alone. Runs of one method that differ in more are
    entries of their own, named with what differs; a run that was made again with the same seed is one, too.

    Returns:
        One row per run, in order of time.

    Raises:
        ComparisonError: The store has no such experiment, it has no run with test scores, or a seed is no
            integer.
    """
    uri = store_uri(store)
    database = database_of(uri)
    if database is not None and not database.is_file():
        raise ComparisonError(
            f"`store` must hold tracked runs, but there is no database at {database}. Run `weft train` or `weft demo` "
            "first, or name the store."
        )
    mlflow_client = client(uri)
    found = mlflow_client.get_experiment_by_name(experiment)
    if found is None:
        names: list[object] = [one.name for one in mlflow_client.search_experiments(max_results=50)]
        raise ComparisonError(
            f"`experiment` must be one of the store's ({shown(names, 20)}), but is {experiment!r}. Choose one of these."
        )
    runs = _runs(mlflow_client, str(found.experiment_id))
    scored = [(row, run.data.params) for run in runs if (row := _row(run)) is not None]
    rows = told_apart([row for row, _ in scored], [params for _, params in scored])
    if not rows:
        raise ComparisonError(
            f"`experiment` must hold finished runs with metrics named {_TEST}<task>, but {experiment!r} has none. "
            "Evaluate a run first."
        )
    return rows


def told_apart(rows: Sequence[Row], params: Sequence[Mapping[str, str]]) -> list[Row]:
    """Rows whose `method` is the same only where their runs differ in the seed alone.

    Records that a seed draws may differ with it: the fingerprint of data is left out where each seed has one of its
    own and the numbers of records are the same.

    Args:
        rows: The runs, oldest first. Those that come back say in their names and labels what differs between runs of
            one method, and which are earlier runs of a seed.
        params: Parameters of each run.
    """
    by_method: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_method.setdefault(row.method, []).append(place)
    found = list(rows)
    for places in by_method.values():
        seeds = [rows[place].seed for place in places]
        keys = sorted({key for place in places for key in params[place]} - {"seed"})
        given = {key: [params[place].get(key) for place in places] for key in keys}
        apart = {key: values for key, values in given.items() if _differs(key, values, seeds)}
        later: dict[tuple[str, int], int] = {}
        for place in reversed(places):
            row = rows[place]
            words = [f"{key} {_word(params[place].get(key), values)}" for key, values in apart.items()]
            own = ", ".join(words), row.seed
            words += [f"{later[own]} before the last"] if own in later else []
            later[own] = later.get(own, 0) + 1
            if words:
                mark = f" ({', '.join(words)})"
                found[place] = replace(row, method=row.method + mark, label=row.label + mark)
    return found


def _differs(key: str, values: Sequence[str | None], seeds: Sequence[int]) -> bool:
    if len(set(values)) == 1:
        return False
    # Each seed has one value of its own.
    drawn = key.startswith("data.") and len(set(zip(seeds, values, strict=True))) == len(set(seeds))
    return not drawn or len(set(map(_without_digest, values))) > 1


def _word(value: str | None, values: Sequence[str | None]) -> str:
    """How one of several values of a parameter is told: without its digest, unless digests are all that differs."""
    if value is None:
        return "not stated"
    words, mark, digest = value.partition(_DIGEST)
    return f"{words}{mark}{digest[:8]}" if len(set(map(_without_digest, values))) == 1 else words


def _without_digest(value: str | None) -> str | None:
    return value if value is None else value.partition(_DIGEST)[0]


def _runs(mlflow_client: MlflowClient, experiment: str) -> list[Any]:
    runs: list[Any] = []
    token = None
    while True:
        page = mlflow_client.search_runs(
            [experiment],
            "attributes.status = 'FINISHED'",
            max_results=_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        runs.extend(page)
        token = page.token
        if not token:
            return runs


def _row(run: Any) -> Row | None:
    metrics, params, tags = run.data.metrics, run.data.params, run.data.tags
    scores = {
        name.removeprefix(_TEST): _finite(run, name)
        for name in metrics
        if name.startswith(_TEST) and name != _AVERAGE and "/" not in name.removeprefix(_TEST)
    }
    if not scores:
        return None
    method = params.get("method") or run.info.run_name or run.info.run_id
    return Row(
        method=method,
        scores=scores,
        label=tags.get("weft.label") or method.replace("_", " "),
        seed=_seed(run),
        trainable=_count(_finite(run, "parameters/trainable")),
        total=_count(_finite(run, "parameters/total")),
        seconds=metrics.get("time/seconds"),
        memory=metrics.get("memory/peak_mb"),
        control=tags.get(_CONTROL, "").lower() == "true",
        run_id=run.info.run_id,
    )


def _seed(run: Any) -> int:
    given = run.data.params.get("seed", "0")
    try:
        return int(given)
    except ValueError as error:
        raise ComparisonError(
            f"Parameter `seed` of a run must be an integer, but that of {run.info.run_name!r} ({run.info.run_id}) is "
            f"{given!r}. Delete the run or compare another experiment."
        ) from error


def _finite(run: Any, name: str) -> Any:
    """A metric of a run, or None where it has none; stores keep an infinite one as the largest number."""
    value = run.data.metrics.get(name)
    if value is not None and not abs(value) < sys.float_info.max:
        raise ComparisonError(
            f"Metric `{name}` of a run must be a finite number, but that of {run.info.run_name!r} ({run.info.run_id}) "
            f"is {value}. Delete the run or compare another experiment."
        )
    return value


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)

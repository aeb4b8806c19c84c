"""Reading comparison rows from the runs that training logged."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.eval.compare.comparison import Row
from weft.eval.errors import ComparisonError, shown
from weft.eval.tracking.store import client, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TEST = "test/"
_AVERAGE = "test/average"
_CONTROL = "weft.control"
_PAGE = 1000


def read_rows(store: Path | str | None, experiment: str) -> list[Row]:
    """Read the runs of an experiment that carry test scores, newest seed of a method winning.

    Expected of a run: parameters `method` and `seed`; metrics `test/<task>` (0..100), `parameters/trainable`,
    `parameters/total`, `time/seconds`, `memory/peak_mb`; tag `weft.control` = "true" for baselines and
    `weft.label` for a name in print. When method and seed ran twice, the later run counts.

    Args:
        store: A folder, a tracking URI, or `None`.
        experiment: Name of the experiment.

    Returns:
        One row per method and seed, in order of the first run of each.

    Raises:
        ComparisonError: The store has no such experiment, it has no run with test scores, or a seed is no
            integer.
    """
    uri = store_uri(store)
    if uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file():
        raise ComparisonError(
            f"`store` must hold tracked runs, but there is no database at {uri.removeprefix('sqlite:///')}. "
            "Run `weft train` or `weft demo` first, or name the store."
        )
    mlflow_client = client(uri)
    found = mlflow_client.get_experiment_by_name(experiment)
    if found is None:
        names: list[object] = [one.name for one in mlflow_client.search_experiments(max_results=50)]
        raise ComparisonError(
            f"`experiment` must be one of the store's ({shown(names, 20)}), but is {experiment!r}. Choose one of these."
        )
    rows: dict[tuple[str, int], Row] = {}
    for run in _runs(mlflow_client, str(found.experiment_id)):
        row = _row(run)
        if row is not None:
            rows[row.method, row.seed] = row
    if not rows:
        raise ComparisonError(
            f"`experiment` must hold finished runs with metrics named {_TEST}<task>, but {experiment!r} has none. "
            "Evaluate a run first."
        )
    return list(rows.values())


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
        name.removeprefix(_TEST): value
        for name, value in metrics.items()
        if name.startswith(_TEST) and name != _AVERAGE and "/" not in name.removeprefix(_TEST)
    }
    if not scores:
        return None
    method = params.get("method") or run.info.run_name
    return Row(
        method=method,
        scores=scores,
        label=tags.get("weft.label") or method.replace("_", " "),
        seed=_seed(run),
        trainable=_count(metrics.get("parameters/trainable")),
        total=_count(metrics.get("parameters/total")),
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


def _count(value: float | None) -> int | None:
    return None if value is None else round(value)

"""Finding the prediction tables of a run: in a folder, or in an MLflow store."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from weft.data.sources.credentials import without_secrets
from weft.eval.errors import FormatError
from weft.eval.report.predictions import SUFFIX, PredictionTable, require_inside
from weft.eval.tracking.store import client, store_uri

_PREDICTIONS = "predictions"


def tables_in(folder: Path | str) -> dict[str, PredictionTable]:
    """All prediction tables anywhere below a folder, task to table, in the order of their paths.

    Raises:
        FormatError: There is none, or one that lies elsewhere or does not read.
    """
    paths = sorted(Path(folder).rglob(f"*{SUFFIX}"))
    if not paths:
        raise FormatError(
            f"{str(folder)!r} must hold prediction tables (*{SUFFIX}), but holds none. Evaluate the run first."
        )
    for path in paths:
        require_inside(path, Path(folder), "A prediction table")
    return {table.task: table for table in map(PredictionTable.load, paths)}


def tables_of_run(
    store: Path | str | None, run_id: str, *, download: Path | None = None
) -> dict[str, PredictionTable]:
    """The prediction tables that a tracked run keeps among its artifacts.

    Args:
        store: A folder, a tracking URI, or `None` (see `weft.eval.tracking.store_uri`).
        run_id: Id of the run.
        download: Where artifacts are put; a new temporary folder by default.

    Returns:
        Task to table.

    Raises:
        FormatError: The store has no such run, or the run keeps no table.
    """
    from mlflow.exceptions import MlflowException

    target = download or Path(tempfile.mkdtemp(prefix="weft-inspect-"))
    uri = store_uri(store)
    mlflow_client = client(uri)
    try:
        artifacts = mlflow_client.list_artifacts(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise FormatError(
            f"`run_id` must be a run of the store {without_secrets(uri)}, but {run_id!r} is none. Give the folder of a "
            "run, or an id that the MLflow UI shows."
        ) from error
    for artifact in artifacts:
        if artifact.path == _PREDICTIONS:
            mlflow_client.download_artifacts(run_id, artifact.path, str(target))
    return tables_in(target)


def scores_of_runs(store: Path | str | None, run_ids: Iterable[str]) -> dict[str, dict[str, PredictionTable]]:
    """The prediction tables of several tracked runs of a store, without their pictures.

    Returns:
        Run id to task to table, for the runs that keep any.
    """
    mlflow_client = client(store_uri(store))
    found: dict[str, dict[str, PredictionTable]] = {}
    for run_id in run_ids:
        names = [artifact.path for artifact in mlflow_client.list_artifacts(run_id, _PREDICTIONS)]
        with tempfile.TemporaryDirectory() as folder:
            for name in names:
                if name.endswith(SUFFIX):
                    mlflow_client.download_artifacts(run_id, name, folder)
            tables = [PredictionTable.load(path) for path in Path(folder).rglob(f"*{SUFFIX}")]
        if tables:
            found[run_id] = {table.task: replace(table, folder=None) for table in tables}
    return found

"""Finding the prediction tables of a run: in a folder, or in an MLflow store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from weft.eval.errors import FormatError
from weft.eval.report.predictions import SUFFIX, PredictionTable
from weft.eval.tracking.store import client, store_uri


def tables_in(folder: Path | str) -> dict[str, PredictionTable]:
    """All prediction tables anywhere below a folder.

    Args:
        folder: Folder of a run.

    Returns:
        Task to table, alphabetically.

    Raises:
        FormatError: There is none.
    """
    paths = sorted(Path(folder).rglob(f"*{SUFFIX}"))
    if not paths:
        raise FormatError(
            f"{str(folder)!r} must hold prediction tables (*{SUFFIX}), but holds none. Evaluate the run first."
        )
    tables = [PredictionTable.load(path) for path in paths]
    return {table.task: table for table in tables}


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
        FormatError: The run keeps none.
    """
    target = download or Path(tempfile.mkdtemp(prefix="weft-inspect-"))
    mlflow_client = client(store_uri(store))
    for artifact in mlflow_client.list_artifacts(run_id):
        if artifact.path == "predictions":
            mlflow_client.download_artifacts(run_id, artifact.path, str(target))
    return tables_in(target)

"""Which tracking store a command reads."""

from __future__ import annotations

import os
from pathlib import Path

from weft.train.errors import RunError

DEFAULT_STORE = "weft-runs/mlflow"
STORE_HELP = f"Folder or URI of the store; by default MLFLOW_TRACKING_URI or {DEFAULT_STORE}."


def existing_store(store: str | None) -> str | None:
    """The store to read: as given, else that of the environment (None), else the folder beside the runs.

    Args:
        store: Value of `--store`.

    Raises:
        RunError: If it is neither a tracking URI nor a folder that holds a database.
    """
    if store is None:
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        store = DEFAULT_STORE
    if "://" not in store and not (Path(store) / "mlflow.db").is_file():
        raise RunError(
            f"`--store` must be a folder that holds mlflow.db, or a tracking URI, but {store!r} is neither."
            " Name the folder that holds the runs' mlflow.db."
        )
    return store

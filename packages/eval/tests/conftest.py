from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from weft.eval.tracking import store_uri
from weft.eval.tracking.store import client

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[4] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = Path(os.environ.get("WEFT_REALDATA", _BESIDE_THE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set WEFT_REALDATA to the folder")
    return folder


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database; making one takes seconds, so that tests copy it."""
    folder = tmp_path_factory.mktemp("migrated")
    client(store_uri(folder)).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def store(migrated: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    return folder

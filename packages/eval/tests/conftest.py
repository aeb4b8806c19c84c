from __future__ import annotations

import os
from pathlib import Path

import pytest

_BESIDE_THE_REPOSITORY = Path(__file__).resolve().parents[4] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    folder = Path(os.environ.get("WEFT_REALDATA", _BESIDE_THE_REPOSITORY))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set WEFT_REALDATA to the folder")
    return folder

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real files, or skip."""
    given = os.environ.get("WEFT_REALDATA")
    folder = Path(given) if given else Path(__file__).parents[4] / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip(f"real files are not at {folder}; set WEFT_REALDATA")
    return folder

"""What the tests of all packages share: cheap collections of garbage, and what is slow to make, made once.

The libraries that the tests import are a million objects that stay to the end. Each full collection would walk them
again, and a training asks for several: a third of the time of a small one. So they are set aside once imported.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

MadeOnce = Callable[[str, Callable[[Path], object]], Path]

gc.disable()  # until all test modules are imported


def pytest_collection_finish() -> None:
    """Begin to collect, without what was imported."""
    _set_aside()
    gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """After each file, set aside what it was the first to import."""
    if nextitem is None or nextitem.path != item.path:
        _set_aside()


def _set_aside() -> None:
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of the real files; a test that asks for them is skipped where they are not."""
    beside = Path(__file__).resolve().parents[1] / "shared" / "realdata"
    folder = Path(os.environ.get("WEFT_REALDATA") or beside)
    if not folder.is_dir():
        pytest.skip(f"the real files are not in {folder}; set WEFT_REALDATA to their folder")
    return folder


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Gives the folder of a name, filled by `make(folder)` once in a session, by whichever process asks first."""
    from filelock import FileLock

    own = tmp_path_factory.getbasetemp()
    root = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder_of(name: str, make: Callable[[Path], object]) -> Path:
        folder, partial = root / name, root / f"{name}.partial"
        with FileLock(root / f"{name}.lock"):
            if not folder.exists():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
                make(partial)
                partial.rename(folder)
        return folder

    return folder_of


@pytest.fixture
def store(made_once: MadeOnce, tmp_path: Path) -> Path:
    """A new tracking store, in the folder `store` of the test; making its database takes dozens of migrations."""
    from weft.eval.tracking.store import client, store_uri

    made = made_once("migrated", lambda folder: client(store_uri(folder)).search_experiments())
    folder = tmp_path / "store"
    folder.mkdir()
    shutil.copy(made / "mlflow.db", folder / "mlflow.db")
    return folder

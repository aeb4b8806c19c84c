"""Processes that use a new tracking store together make it once, and none of them dies."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from weft.eval.testing.first_uses import assert_first_uses
from weft.eval.tracking import store_uri
from weft.eval.tracking.store import client


def race(store: Path) -> None:
    assert_first_uses([str(store)])
    assert not list(store.glob(".*.lock"))


def test_four_processes_make_a_store_once(tmp_path: Path) -> None:
    race(tmp_path / "new")


@pytest.mark.slow
def test_four_processes_make_a_store_once_every_time(tmp_path: Path) -> None:
    for number in range(20):
        race(tmp_path / f"new-{number}")


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="needs a folder that cannot be written")
def test_a_store_that_can_only_be_read_is_read(store: Path) -> None:
    (store).chmod(0o555)
    try:
        assert client(store_uri(store)).search_experiments()
    finally:
        store.chmod(0o755)
        shutil.rmtree(store)

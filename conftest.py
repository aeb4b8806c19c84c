"""Cheap collections of garbage for the tests of all packages.

The libraries that the tests import are a million objects that stay to the end. Each full collection would walk them
again, and a training asks for several: a third of the time of a small one. So they are set aside once imported.
"""

from __future__ import annotations

import gc

import pytest

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

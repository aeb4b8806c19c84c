"""The page on families: its table is what the installed transformers gives, if it is the release of the table."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import transformers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "families.md").read_text("utf-8")


@pytest.fixture
def script() -> Any:
    found: Any = importlib.util.spec_from_file_location("family_table", ROOT / "scripts" / "family_table.py")
    script = importlib.util.module_from_spec(found)
    found.loader.exec_module(script)
    return script


def test_the_table_of_units_is_what_they_need_and_families_declare(script: Any) -> None:
    assert script.UNITS_PLACE.search(PAGE).group() == script.units_table(), (
        "run `python scripts/family_table.py`"
    )


@pytest.mark.slow
@pytest.mark.skipif(
    f"With transformers {transformers.__version__}:" not in PAGE, reason="made with another release"
)
def test_the_table_of_types_is_what_is_found(script: Any) -> None:
    assert script.PLACE.search(PAGE).group() == script.table(), "run `python scripts/family_table.py`"

"""The pages of methods say what their classes say, and count what a plan counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from weft.core.unit.protocol import units

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "methods"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("method_pages", ROOT / "scripts" / "method_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["method_pages"] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_is_what_the_script_writes(script: ModuleType) -> None:
    written = {path.name: path.read_text("utf-8") for path in FOLDER.glob("*.md")}
    stale = [name for name, text in script.pages() if written.pop(name, None) != text]
    assert (stale, written) == ([], {}), "run python scripts/method_pages.py"


def test_every_option_of_a_method_is_explained(script: ModuleType) -> None:
    for name, config in units().items():
        explained = script._argument_lines(config)
        bare = [option for option in config.model_fields if option not in (*script.COMMON, *explained)]
        assert bare == [], name

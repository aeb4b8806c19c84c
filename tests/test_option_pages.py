"""The pages of options say what the classes say, and count what a plan counts."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from weft.core.unit.protocol import units
from weft.train.recipe.few_shot import FewShotRecipe
from weft.train.recipe.training import Recipe

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("option_pages", ROOT / "scripts" / "option_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["option_pages"] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_is_what_the_script_writes(script: ModuleType) -> None:
    found = [DOCS / "recipe_keys.md", *DOCS.glob("methods/*.md")]
    written = {path.relative_to(DOCS).as_posix(): path.read_text("utf-8") for path in found}
    stale = [name for name, text in script.pages() if written.pop(name, None) != text]
    assert (stale, written) == ([], {}), "run python scripts/option_pages.py"


def test_every_option_of_a_method_is_explained(script: ModuleType) -> None:
    for name, config in units().items():
        explained = script._argument_lines(config)
        bare = [option for option in config.model_fields if option not in (*script.COMMON, *explained)]
        assert bare == [], name


def test_every_key_of_a_recipe_is_explained(script: ModuleType) -> None:
    for kind in (Recipe, FewShotRecipe):
        for where, section in script.sections(kind):
            bare = [key for key in section.model_fields if key not in script._argument_lines(section)]
            assert bare == [], where

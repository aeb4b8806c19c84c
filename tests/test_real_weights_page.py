"""The page on pretrained weights: its tables are what the result files say."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "real_weights.md").read_text("utf-8")


@pytest.fixture(autouse=True)
def beside_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))


def loaded(path: Path) -> Any:
    found: Any = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["real_tables", "sharing_tables"])
def test_every_table_is_what_its_result_says(name: str) -> None:
    script = loaded(ROOT / "scripts" / f"{name}.py")
    result = json.loads(script.RESULT.read_text("utf-8"))
    assert script.with_tables(PAGE, result) == PAGE, f"run `python scripts/{name}.py`"


def test_a_rate_is_searched_until_neither_neighbour_of_the_best_is_better() -> None:
    script = loaded(ROOT / "packages" / "train" / "benchmarks" / "real_sharing.py")
    true = dict(zip(script.RATES, (0, 0, 1, 2, 3, 5, 9, 8, 4, 2, 1), strict=True))
    tried = {1e-4: true[1e-4]}
    while wanted := script.untried(tried):
        tried[wanted[0]] = true[wanted[0]]
    assert script.best_rate(tried) == 1e-3
    assert sorted(tried) == [3e-5, 1e-4, 3e-4, 1e-3, 3e-3]


def test_the_lower_of_two_equal_rates_is_taken_and_the_ends_have_one_neighbour() -> None:
    script = loaded(ROOT / "packages" / "train" / "benchmarks" / "real_sharing.py")
    assert script.best_rate({3e-3: 50.0, 1e-3: 50.0}) == 1e-3
    assert script.untried({1e-6: 50.0}) == [3e-6]
    assert script.untried({1e-1: 50.0}) == [3e-2]


def test_runs_of_other_steps_and_the_seed_of_the_search_are_not_put_beside_others(tmp_path: Path) -> None:
    script = loaded(ROOT / "packages" / "train" / "benchmarks" / "real_sharing.py")
    found = {"search": [{"steps": 80, "batch_size": 16}], "cells": []}
    (tmp_path / "real_sharing.json").write_text(json.dumps(found), "utf-8")
    asked = {"output": tmp_path, "steps": 80, "batch_size": 16, "seeds": [0]}
    assert script.Measurement(argparse.Namespace(**asked)).found == found
    with pytest.raises(SystemExit, match=r"--steps .* must be those of .*real_sharing.json, {\(80, 16\)}"):
        script.Measurement(argparse.Namespace(**asked | {"steps": 2}))
    with pytest.raises(SystemExit, match="--seeds must not hold 100"):
        script.Measurement(argparse.Namespace(**asked | {"seeds": [0, 100]}))


def test_a_difference_weighs_every_set_alike_and_pairs_its_images() -> None:
    script = loaded(ROOT / "scripts" / "sharing_tables.py")
    sizes = {"large": 40, "small": 20}

    def cell(seed: int, large: str, small: str) -> dict[str, Any]:
        right = {"large": large, "small": small}
        shares = [100 * right[task].count("1") / count for task, count in sizes.items()]
        return {"seed": seed, "average": sum(shares) / 2, "test": sizes, "right": right}

    one = [cell(seed, "1" * 40, "1" * 20) for seed in (0, 1)]
    other = [cell(seed, "1" * 40, "0" * 20) for seed in (0, 1)]
    assert script.difference(one, other) == ("+50.0 ± 0.0", "< 0.001", "+50.0, +50.0")
    assert script.difference(one, one) == ("+0.0 ± 0.0", "1.000", "+0.0, +0.0")

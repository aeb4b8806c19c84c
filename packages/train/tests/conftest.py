import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def values(tmp_path: Path) -> dict[str, Any]:
    """A recipe of seconds: two tasks on a handful of scenes."""

    def task(name: str, metric: str) -> dict[str, Any]:
        return {
            "prompt": f"{name}: ",
            "metric": metric,
            "max_new_tokens": 3,
            "data": {
                "name": "scenes",
                "validation": "validation",
                "options": {"task": name, "size": 40, "num_scenes": 30},
                "test_options": {"size": 12, "num_scenes": 20},
            },
        }

    return {
        "name": "tiny",
        "backbone": {"name": "miniature"},
        "method": {
            "method": "bottleneck",
            "bottleneck_size": 4,
            "sharing": "multiple",
            "train_full": ["visual_embedding"],
        },
        "tasks": {"vqa": task("vqa", "vqa"), "nlvr": task("nlvr", "nlvr")},
        "training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "log_every": 2, "threads": 1},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
    }


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    with warnings.catch_warnings():
        # Raised inside transformers' trainer on machines without an accelerator.
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        yield

import hashlib
import json
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import CLIPConfig, CLIPModel

from weft.core.testing.processed.words import word_tokenizer
from weft.train.output.result import Result
from weft.train.recipe.training import Recipe
from weft.train.runs.run import execute

Finished = Callable[[Recipe], Result]
WORDS = ["<s>", "</s>", "<pad>", "<unk>", "a", "photo", "of", "x", ".", "crimson", "navy", "olive", "teal"]
WORDS += ["dress", "hat", "long", "sleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t"]


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
            "init": "bert",
            "bottleneck_size": 4,
            "sharing": "multiple",
            "train_full": ["visual_embedding"],
        },
        "tasks": {"vqa": task("vqa", "vqa"), "nlvr": task("nlvr", "nlvr")},
        "training": {"steps": 6, "batch_size": 8, "learning_rate": 1e-2, "log_every": 2, "threads": 1},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
    }


@pytest.fixture
def finished(made_once: Callable[..., Path]) -> Finished:
    """A finished run of a recipe, in its own folder: trained once in a session, whatever its name, and copied."""

    def run(recipe: Recipe) -> Result:
        assert not recipe.tracking.enabled, "a copy would be in no store"
        values = recipe.model_dump(mode="json")
        what = json.dumps({key: value for key, value in values.items() if key not in ("name", "output")})

        def train(folder: Path) -> None:
            result = execute(recipe.model_copy(update={"output": str(folder), "name": "run"}))
            (folder / "result.pickle").write_bytes(pickle.dumps(result))

        made = made_once(f"run-{hashlib.sha256(what.encode()).hexdigest()[:16]}", train)
        shutil.copytree(made / "run", recipe.folder)
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        (recipe.folder / "recipe.yaml").write_text(text, encoding="utf-8")
        told = json.loads((recipe.folder / "result.json").read_text())
        (recipe.folder / "result.json").write_text(json.dumps(told | {"name": recipe.name}))
        return replace(pickle.loads((made / "result.pickle").read_bytes()), folder=recipe.folder)

    return run


@pytest.fixture(autouse=True)
def quiet_libraries() -> Iterator[None]:
    with warnings.catch_warnings():
        # Raised inside transformers' trainer on machines without an accelerator.
        warnings.filterwarnings("ignore", message=".*pin_memory.*")
        yield


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a tiny random CLIP, its tokenizer and its preprocessing."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("clip")
    word_tokenizer(WORDS).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"vocab_size": len(WORDS), "max_position_embeddings": 24, "bos_token_id": 0, "eos_token_id": 1}
    config = CLIPConfig(
        text_config={**size, **text, "pad_token_id": 2},
        vision_config={**size, "image_size": 24, "patch_size": 8},
        projection_dim=16,
    )
    CLIPModel(config).save_pretrained(folder)
    preprocessing = {
        "size": {"shortest_edge": 24},
        "do_center_crop": True,
        "crop_size": {"height": 24, "width": 24},
        "resample": 3,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))
    return str(folder)

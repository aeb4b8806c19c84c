"""Linears in 8 or 4 bits below adapters in full precision, where bitsandbytes is installed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from weft.core import load_adapter, plan
from weft.core.testing.processed import tiny
from weft.train.backbones.loading import load_backbone, planned_model
from weft.train.preflight.memory import estimate_memory, quantised_linears
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights
from weft.train.testing.own_data import own_task, write_own_data

pytest.importorskip("bitsandbytes")
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 2, "sharing": "multiple"},
    "adapter": {"method": "bottleneck", "init": "bert", "reduction_factor": 4, "sharing": "single"},
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny LLaVA with widths that the 4-bit kernels of a CPU take: multiples of 64."""
    folder, made = tmp_path_factory.mktemp("model"), tiny("llava")
    config = copy.deepcopy(made.model.config)
    for part in (config.text_config, config.vision_config):
        part.hidden_size, part.intermediate_size = 64, 128
    config.text_config.head_dim = 64 // config.text_config.num_attention_heads
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    made.processor.save_pretrained(folder)
    return folder


@pytest.fixture
def make(wide: Path, tmp_path: Path) -> Callable[[str, dict[str, Any]], Recipe]:
    data = write_own_data(tmp_path / "data")

    def recipe(method: str, backbone: dict[str, Any]) -> Recipe:
        return load_recipe(
            {
                "name": "own",
                "backbone": {"name": str(wide), **backbone},
                "method": METHODS[method],
                "tasks": {
                    "vqa": own_task(data, "image_qa", ask="{question}", metric="exact", max_new_tokens=3),
                    "caption": own_task(data, "caption", ask="Describe.", max_new_tokens=3),
                },
                "training": {"steps": 3, "batch_size": 4, "learning_rate": 1e-2, "mixing": {"unit": "mixed"}},
                "tracking": {"enabled": False},
                "output": str(tmp_path / "runs"),
            }
        )

    return recipe


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("bits", ["8bit", "nf4"])
@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_backbone_is_trained_scored_and_its_adapter_put_on_the_plain_one(
    bits: str, method: str, make: Callable[[str, dict[str, Any]], Recipe]
) -> None:
    recipe = make(method, {"quantize": bits})
    frozen = load_backbone(recipe.backbone).model
    kind = {"8bit": "Linear8bitLt", "nf4": "Linear4bit"}[bits]
    assert kind in {type(module).__name__ for module in frozen.modules()}
    plain = planned_model(recipe.backbone)
    counted = sum(type(module).__name__ == kind for module in frozen.modules())
    assert counted == len(quantised_linears(plain))
    kept = sum(value.numel() * value.element_size() for value in (*frozen.parameters(), *frozen.buffers()))
    said = estimate_memory(recipe, plan(plain, recipe.method, list(recipe.tasks)), plain)
    assert abs(said.weights - said.gradients - kept) < 0.05 * kept
    result = execute(recipe)
    adapter = adapter_weights(result.folder)
    assert {value.dtype for value in adapter.values()} == {torch.float32}
    assert any(bool(value.any()) for key, value in adapter.items() if "up" in key or "b" in key.split("."))
    assert rescore(result.folder).scores == result.scores
    plain = load_adapter(load_backbone(make(method, {}).backbone).model, result.folder / "adapter")
    held = dict(plain.named_parameters())
    assert all(value.dtype == torch.float32 for value in held.values())

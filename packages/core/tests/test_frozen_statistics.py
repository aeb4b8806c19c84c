"""A frozen norm keeps its running statistics in training: the adapter alone says what a model computes afterwards."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import ResNetConfig

from weft.core import attach, detach, load_adapter
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.testing.backbones import bart_config

FROZEN = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4}
TRAINED = FROZEN | {"train_full": ["vision"]}


def with_tower() -> Any:
    torch.manual_seed(0)
    vision = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
    return VisualSeq2Seq(VisualSeq2SeqConfig(bart_config(), vision, feature_size=12, num_visual_tokens=4))


def statistics(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.vision_tower.named_buffers()}


def step(model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    model.vision_tower(torch.rand(2, 3, 32, 48, generator=generator))


@pytest.mark.parametrize("mode", ["before", "after"])
@pytest.mark.parametrize(
    ("method", "move"), [(FROZEN, False), (TRAINED, True)], ids=["frozen", "trained in full"]
)
def test_running_statistics_move_where_they_are_trained_and_saved_alone(method, move, mode, tmp_path):
    model = with_tower().train(mode == "before")
    attach(model, method, ["vqa"])
    if mode == "after":
        model.train()
    before = statistics(model)
    step(model)
    after = statistics(model)
    assert any(not torch.equal(before[name], after[name]) for name in before) is move
    model.save_pretrained(tmp_path)
    again = statistics(load_adapter(with_tower(), tmp_path))
    assert all(torch.equal(again[name], after[name]) for name in after)


def test_detaching_gives_norms_their_mode_back():
    model = attach(with_tower().train(), FROZEN, ["vqa"])
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert not any(norm.training for norm in norms)
    detach(model)
    assert model.training
    assert all(norm.training for norm in norms)

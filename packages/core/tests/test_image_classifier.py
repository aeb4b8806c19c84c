"""Heads of tasks beside one another on a vision model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from weft.core import attach, load_adapter, plan
from weft.core.composites import ImageClassifier, ImageClassifierConfig
from weft.core.composites.image_classifier import tower_options

CLASSES = {"train": 2, "photos": 5}
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
SQUARE = {"image_size": 28, "patch_size": 14}
TOWERS: dict[str, Any] = {
    "dinov2": transformers.Dinov2Config(**SIZES, **SQUARE),
    "vit": transformers.ViTConfig(**SIZES, **SQUARE),
    "clip": transformers.CLIPVisionConfig(**SIZES, **SQUARE),
    "siglip": transformers.SiglipVisionConfig(**SIZES, **SQUARE),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[4, 4, 4, 8], depths=[1, 1, 1, 1]),
    "swin": transformers.SwinConfig(
        embed_dim=4, depths=[1, 1], num_heads=[2, 2], window_size=2, image_size=32
    ),
    "resnet": transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1]),
}
METHOD = {"method": "lora", "rank": 2, "sharing": "multiple", "train_full": ["heads"]}


def classifier(tower: str = "dinov2") -> ImageClassifier:
    torch.manual_seed(0)
    return ImageClassifier(ImageClassifierConfig(TOWERS[tower], CLASSES))


@pytest.mark.parametrize("tower", TOWERS)
def test_any_vision_model_scores_the_classes_of_every_task(tower: str) -> None:
    model = classifier(tower).eval()
    side = 28 if "image_size" not in vars(TOWERS[tower]) else TOWERS[tower].image_size
    pixels = torch.randn(3, 3, side, side)
    logits = model(pixels).logits
    assert logits.shape == (3, 7)
    width = model.heads["task_train"].in_features
    counted = plan(model, {"method": "frozen", "train_full": ["heads"]}, list(CLASSES))
    assert counted.components == {"heads": 7 * (width + 1)}


def test_a_vit_is_read_at_its_class_token_and_not_through_a_pooler_that_files_lack() -> None:
    assert tower_options(TOWERS["vit"]) == {"add_pooling_layer": False}
    assert tower_options(TOWERS["swin"]) == {}
    model = classifier("vit").eval()
    pixels = torch.randn(2, 3, 28, 28)
    token = model.vision_tower(pixel_values=pixels).last_hidden_state[:, 0]
    assert torch.equal(model(pixels).logits[:, :2], model.heads["task_train"](token))


def test_heads_are_named_by_their_task_and_counted_saved_and_loaded_with_the_adapter(tmp_path: Path) -> None:
    model = attach(classifier(), METHOD, list(CLASSES))
    heads = {full.path: full.task for full in model.weft.plan.full}
    assert heads == {
        "heads.task_train.weight": "train",
        "heads.task_train.bias": "train",
        "heads.task_photos.weight": "photos",
        "heads.task_photos.bias": "photos",
    }
    with torch.no_grad():
        for value in model.heads.parameters():
            value.uniform_()
    model.save_pretrained(tmp_path)
    loaded = load_adapter(classifier(), tmp_path)
    pixels = torch.randn(2, 3, 28, 28)
    with torch.no_grad(), model.route(task="photos"), loaded.route(task="photos"):
        assert torch.equal(model.eval()(pixels).logits, loaded.eval()(pixels).logits)


@pytest.mark.parametrize(
    "method", [METHOD, {"method": "frozen", "train_full": ["heads"]}], ids=["lora", "probe"]
)
def test_a_step_without_rows_of_a_task_leaves_its_head_alone(method: dict[str, Any]) -> None:
    model = attach(classifier(), method, list(CLASSES))
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=0.1)

    def changed(tasks: list[str]) -> set[str]:
        before = {name: value.clone() for name, value in model.heads.named_parameters()}
        with model.route(tasks=tasks):
            logits = model(torch.randn(len(tasks), 3, 28, 28)).logits
        logits.logsumexp(1).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        return {
            name.split(".")[0]
            for name, value in model.heads.named_parameters()
            if not torch.equal(value, before[name])
        }

    assert changed(["train", "photos", "train"]) == {"task_train", "task_photos"}
    assert changed(["photos", "photos"]) == {"task_photos"}
    assert changed(["train"]) == {"task_train"}

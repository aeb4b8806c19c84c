"""The fingerprint of a backbone covers every frozen value, names nothing, and reads what does not change once."""

import json
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, ResNetConfig

from weft.core import attach, detach, load_adapter, plan
from weft.core.backbone import tensor_digests as digests
from weft.core.backbone.fingerprint import weights_digest
from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.errors import CheckpointError
from weft.core.files.saving import CONFIG
from weft.core.testing import tiny_backbone
from weft.core.testing.backbones import bart_config

METHOD = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4}


def with_tower() -> Any:
    torch.manual_seed(0)
    size = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = CLIPVisionConfig(**size, image_size=16, patch_size=8, initializer_range=0.02)
    return VisualSeq2Seq(VisualSeq2SeqConfig(bart_config(), vision, feature_size=12, num_visual_tokens=4))


@pytest.fixture
def saved(tmp_path):
    model = with_tower()
    attach(model, METHOD, ["vqa"]).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "vision_tower",
        "visual_embedding",
        "visual_embedding.image_order",
        "language_model.model.shared",
        "language_model.model.encoder.embed_positions",
        "language_model.model.decoder.layernorm_embedding",
        "language_model.final_logits_bias",
    ],
)
@pytest.mark.parametrize("attached", [False, True], ids=["plain", "adapted"])
def test_a_checkpoint_is_refused_where_any_frozen_part_was_changed(saved, place, attached):
    model = with_tower()
    if attached:
        attach(model, METHOD, ["vqa"])
    change(model, place)
    with pytest.raises(CheckpointError, match=r"its weights differ.*check_weights=False"):
        load_adapter(model, saved)
    load_adapter(model, saved, check_weights=False)


def change(model: nn.Module, place: str) -> None:
    front, _, last = place.rpartition(".")
    found = getattr(model.get_submodule(front), last)
    with torch.no_grad():
        for value in found.parameters() if isinstance(found, nn.Module) else [found]:
            value.copy_(torch.zeros_like(value) if value.any() else torch.ones_like(value))


@pytest.mark.parametrize("attached", [False, True], ids=["plain", "adapted"])
def test_a_tower_without_linear_maps_counts_with_its_statistics(tmp_path, attached):
    def made() -> Any:
        torch.manual_seed(0)
        vision = ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])
        return VisualSeq2Seq(VisualSeq2SeqConfig(bart_config(), vision, feature_size=12, num_visual_tokens=4))

    attach(made(), METHOD, ["vqa"]).save_pretrained(tmp_path)
    for values in ("parameters", "buffers"):
        model = attach(made(), METHOD, ["vqa"]) if attached else made()
        with torch.no_grad():
            for value in getattr(model.vision_tower, values)():
                value.zero_()
        with pytest.raises(CheckpointError, match="its weights differ"):
            load_adapter(model, tmp_path)


def test_a_single_value_in_the_middle_counts(saved):
    model = with_tower()
    weight = model.vision_tower.get_parameter(max(dict(model.vision_tower.named_parameters()), key=len))
    with torch.no_grad():
        weight.reshape(-1)[weight.numel() // 2] += 1
    with pytest.raises(CheckpointError, match="its weights differ"):
        load_adapter(model, saved)


def test_two_layers_that_changed_places_are_another_backbone():
    model, _ = tiny_backbone("bart")
    before = weights_digest(model)
    first, second = (model.model.encoder.layers[k].fc1.weight for k in (0, 1))
    first.data, second.data = second.data.clone(), first.data.clone()
    assert weights_digest(model) != before


def test_what_the_checkpoint_holds_itself_may_differ(tmp_path):
    method = {**METHOD, "train_full": ["visual_embedding"]}
    model = with_tower()
    attach(model, method, ["vqa"]).save_pretrained(tmp_path)
    other = with_tower()
    change(other, "visual_embedding")
    load_adapter(other, tmp_path)
    assert other.visual_embedding.image_order.weight.any()


def test_statistics_of_a_frozen_tower_count():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = weights_digest(model)
    model(torch.rand(2, 3, 5, 7))
    assert weights_digest(model) != before
    assert weights_digest(model, {"1.weight", "1.bias"}) != before


def test_names_do_not_count_and_neither_does_the_precision_it_was_loaded_in():
    torch.manual_seed(0)
    one = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    other = nn.ModuleDict({"first": one[0], "second": one[1]})
    whole = weights_digest(one)
    assert whole == weights_digest(other)
    assert whole == weights_digest(one.bfloat16())


def test_weights_that_are_not_at_hand_have_no_fingerprint():
    assert weights_digest(nn.Linear(3, 5, device="meta")) is None
    quantised = nn.Linear(3, 5)
    quantised.weight = nn.Parameter(torch.zeros(5, 3, dtype=torch.uint8), requires_grad=False)
    assert weights_digest(quantised) is None


def test_a_backbone_is_read_once_until_it_changes(saved, monkeypatch):
    model = with_tower()
    read, digest = [], digests._digest
    monkeypatch.setattr(digests, "_digest", lambda value: read.append(value) or digest(value))
    attach(model, METHOD, ["vqa"])
    first = len(read)
    assert first > 50
    load_adapter(model, saved)
    load_adapter(model, saved)
    attach(detach(model), METHOD, ["vqa"])
    assert len(read) == first
    model.visual_embedding.feature_projection.weight.data.zero_()
    with pytest.raises(CheckpointError, match="its weights differ"):
        load_adapter(model, saved)
    assert len(read) == first + 1


def test_large_tensors_are_hashed_in_pieces_as_they_are_as_a_whole(monkeypatch):
    value = torch.randn(7, 11)
    whole = digests._digest(value)
    monkeypatch.setattr(digests, "_CHUNK", 10)
    assert digests._digest(value) == whole
    monkeypatch.setattr(digests, "_WORTH_THREADS", 10)
    assert digests.tensor_digests(nn.Linear(1, 1), [("a", value), ("b", value)]) == [whole, whole]


def test_a_checkpoint_of_the_first_fingerprint_is_checked_by_it(tmp_path):
    # What commit 3f44269 wrote for this backbone and method.
    old = {"structure": "cd5c7c17e0d9adcd", "weights": "a0e165d3b24a5ee7"}
    model, _ = tiny_backbone("bart")
    attach(model, {**METHOD, "train_full": ["norms"]}, ["vqa"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert config["backbone"]["structure"] == old["structure"]
    config["backbone"] |= old
    (tmp_path / CONFIG).write_text(json.dumps(config))
    load_adapter(tiny_backbone("bart")[0], tmp_path)
    load_adapter(model, tmp_path)
    with pytest.raises(CheckpointError, match="its weights differ"):
        load_adapter(tiny_backbone("bart", seed=5)[0], tmp_path)


def test_a_plan_says_what_its_backbone_was():
    model, _ = tiny_backbone("bart")
    weights = plan(model, METHOD).backbone.weights
    assert weights == weights_digest(model)
    assert weights.startswith("2:")

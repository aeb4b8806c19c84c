"""UniAdapter in decoder-only models, where tokens of images and of text lie in one sequence."""

import pytest
import torch

from weft.core import attach
from weft.core.errors import ConfigError, RoutingError
from weft.core.testing.backbones import tiny_backbone
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.vision_language import CASES, IMAGE

METHOD = {"method": "uniadapter", "bottleneck_size": 4, "branches": ["text", "vision"], "per_token": True}
NAMES = ("llava", "qwen2_5_vl", "qwen3_vl")


def adapted(name, method=METHOD, tasks=None):
    torch.manual_seed(0)
    model, batch = CASES[name]()
    attach(model.eval(), method, tasks)
    torch.manual_seed(1)
    move_slots(model, 0.3)
    return model, batch


def mlp_change(model, x, modality):
    """What the adapters add to the feed-forward block of the first text layer, token by token."""
    layer = model.model.language_model.layers[0]
    outputs = []
    for enabled in (True, False):
        with model.weft.using(None, enabled, {"token_modality": modality}), torch.no_grad():
            outputs.append(layer.mlp(layer.post_attention_layernorm(x)))
    return outputs[0] - outputs[1]


def tensor(folder, *words):
    for word in (*words[:1], "0", "ffn", *words[1:]):
        folder = folder._modules[word]
    return folder.stacked()[0]


@pytest.mark.parametrize("name", NAMES)
def test_each_token_takes_the_up_projection_of_its_modality(name):
    model, _ = adapted(name)
    modality = torch.tensor([[0, 0, 1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0, 0, 1]])
    x = torch.randn(2, 8, 16)
    found = mlp_change(model, x, modality)
    weft = model.weft.uniadapter
    norm = tensor(weft, "shared", "norm", "weight"), tensor(weft, "shared", "norm", "bias")
    hidden = torch.nn.functional.layer_norm(x, (16,), *norm) @ tensor(weft, "shared", "down", "weight")
    hidden = torch.relu(hidden + tensor(weft, "shared", "down", "bias"))
    expected = [
        hidden @ tensor(weft, tower, "up", "weight") + tensor(weft, tower, "up", "bias")
        for tower in ("text", "vision")
    ]
    expected = 0.1 * torch.where(modality[..., None] == 1, expected[1], expected[0])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_finds_its_image_tokens_itself(name):
    model, batch = adapted(name)
    given = (batch["input_ids"] == IMAGE).long()
    with torch.no_grad():
        found = model(**batch).logits
        with model.signal(token_modality=given):
            assert torch.equal(model(**batch).logits, found)
        with model.signal(token_modality=torch.zeros_like(given)):
            assert not torch.allclose(model(**batch).logits, found)


@torch.no_grad()
def test_answers_with_a_cache_are_those_without_one():
    model, batch = adapted("llava")
    cached, plain = (
        model.generate(**batch, max_new_tokens=5, do_sample=False, use_cache=use) for use in (True, False)
    )
    assert torch.equal(cached, plain)


def test_tasks_and_modalities_are_routed_together():
    method = {**METHOD, "sharing": "unified"}
    model, batch = adapted("llava", method, ["a", "b"])
    with torch.no_grad():
        with model.route(tasks=["a", "b"]):
            mixed = model(**batch).logits
        for row, task in enumerate("ab"):
            with model.route(task=task):
                torch.testing.assert_close(model(**batch).logits[row], mixed[row], atol=1e-6, rtol=1e-6)
        with model.route(tasks=["a", None]):
            partly = model(**batch).logits
        with model.disable_adapter():
            plain = model(**batch).logits
    torch.testing.assert_close(partly[0], mixed[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(partly[1], plain[1], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(mixed[1], plain[1])


def test_tokens_without_a_modality_are_refused():
    model, batch = adapted("llava")
    embeds = model.get_input_embeddings()(batch["input_ids"])
    with pytest.raises(
        RoutingError, match=r"`token_modality` must have one entry per token, shape \(2, 10\)"
    ):
        model(inputs_embeds=embeds, attention_mask=batch["attention_mask"])
    clip, _ = tiny_backbone("clip")
    with pytest.raises(ConfigError, match="CLIPConfig has none of image_token_id"):
        attach(clip, METHOD)

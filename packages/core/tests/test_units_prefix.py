"""Prefix tuning: the keys and values reach the attention, and nothing else does."""

import math
import subprocess
import sys
from typing import ClassVar

import pytest
import torch

from weft.core import attach, detach
from weft.core.errors import AttachError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import UnitContract, adapted, outputs, rows_of
from weft.core.testing.vision_language import CASES
from weft.core.unit.method import parse_method

PREFIX = {"method": "prefix", "length": 3}
TASKS = ["vqa", "gqa"]


class TestPrefixWithANetwork(UnitContract):
    configs: ClassVar = list(
        parse_method({**PREFIX, "hidden_size": 5, "sharing": {"prefix": [], "network": ["task", "layer"]}})
    )
    backbones: ClassVar = ["bart"]


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_attention_sees_the_prefix_in_front(implementation):
    """Self-attention of the decoder, written out by hand: causal, with two keys that all queries see."""
    model, _ = tiny_backbone("bart")
    model.set_attn_implementation(implementation)
    attach(model, {**PREFIX, "length": 2, "stacks": ["decoder"], "blocks": ["attention"]})
    module = model.model.decoder.layers[0].self_attn
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.normal_()
    slots = [
        model.weft.banks_by_key[f"prefix.text.decoder.0.attention.{n}"].slot_of("default")
        for n in ("key", "value")
    ]
    x = torch.randn(3, 5, 16)
    allowed = torch.ones(5, 5, dtype=torch.bool).tril()
    mask = torch.zeros(5, 5).masked_fill(~allowed, torch.finfo(torch.float32).min)[None, None]
    given = mask if implementation == "eager" else None  # sdpa leaves the causal mask to torch

    def heads(value):
        return value.reshape(*value.shape[:-1], 2, 8).transpose(-3, -2)

    query, key, value = (heads(getattr(module, f"{name}_proj")(x)) for name in "qkv")
    key, value = (
        torch.cat([heads(s).expand(3, -1, -1, -1), v], dim=2)
        for s, v in zip(slots, (key, value), strict=True)
    )
    scores = query @ key.mT / math.sqrt(8)
    scores[..., 2:] = scores[..., 2:].masked_fill(~allowed, -torch.inf)
    mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(3, 5, 16)
    found = module(x, attention_mask=given)[0]
    torch.testing.assert_close(found, module.out_proj(mixed), atol=1e-6, rtol=1e-6)


def test_a_model_that_another_process_reads_attends_to_its_prefix_there(tmp_path):
    model, batch = tiny_backbone("bart")
    attach(model, PREFIX)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.normal_()
        before = outputs(model.eval(), batch)
    torch.save((model, batch, before), tmp_path / "model.pt")
    script = (
        "import sys, torch; model, batch, before = torch.load(sys.argv[1], weights_only=False); "
        "torch.testing.assert_close(model(**batch).logits, before, rtol=0, atol=0)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "model.pt")], check=True)


@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_both_attention_functions_agree(backbone):
    found = []
    for implementation in ("eager", "sdpa"):
        model, batch = tiny_backbone(backbone)
        model.set_attn_implementation(implementation)
        torch.manual_seed(3)
        attach(model, {**PREFIX, "sharing": "multiple"}, TASKS)
        with model.route(tasks=["vqa", None, "gqa", "gqa"]):
            found.append(outputs(model, batch))
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


def test_generation_with_a_cache_is_generation_without():
    model, batch = adapted({**PREFIX, "sharing": "multiple"}, "bart", TASKS, noise=0.5)
    batch.pop("labels")
    options = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False, "early_stopping": False}
    with model.route(tasks=["vqa", "gqa", None, "vqa"]):
        cached = model.generate(**batch, **options)
        assert torch.equal(model.generate(**batch, **options, use_cache=False), cached)
    with model.route(task="gqa"):
        alone = model.generate(**rows_of(batch, [1]), **options)[0]
    length = min(len(alone), cached.shape[1])
    assert torch.equal(alone[:length], cached[1, :length])


@pytest.mark.parametrize("name", ["bert", "llava", "siglip", "smolvlm", "gemma3", "vit"])
def test_families_take_a_prefix(name):
    """Key heads may be fewer than query heads; every slot gets a gradient."""
    torch.manual_seed(0)
    model, batch = CASES[name]()
    attach(model.eval(), PREFIX)
    result = model(**batch)
    loss = sum(v.float().square().sum() for v in dict(result).values() if isinstance(v, torch.Tensor))
    loss.backward()
    unused = {key for key, _, value in model.weft.slots() if value.grad is None or not value.grad.any()}
    assert not unused


def test_the_shared_config_stays_and_comes_back():
    model, _ = tiny_backbone("bart")
    modules = [layer.self_attn for layer in model.model.encoder.layers]
    before = [module.config for module in modules]
    attach(model, PREFIX)
    assert all(config._attn_implementation == "sdpa" for config in before)
    detach(model)
    assert all(module.config is config for module, config in zip(modules, before, strict=True))


def test_attention_that_is_not_looked_up_is_refused():
    model, _ = CASES["blip_caption"]()
    with pytest.raises(AttachError, match="must call an attention function of transformers by name"):
        attach(model, {**PREFIX, "towers": ["vision"]})
    assert not hasattr(model, "weft")
    attach(model, {"method": "bitfit"})


def test_packed_tokens_are_refused():
    model, _ = CASES["qwen2_5_vl"]()
    with pytest.raises(ConfigError, match="must have a row of its own for every input"):
        attach(model, {**PREFIX, "towers": ["vision"]})


def test_other_attention_functions_are_refused():
    model, batch = adapted(PREFIX, "bart", None)
    module = model.model.encoder.layers[0].self_attn
    module.__dict__["_weft_config"] = type("Config", (), {"_attn_implementation": "flex_attention"})()
    with pytest.raises(
        AttachError, match="must be eager or sdpa where a unit adds keys, but is 'flex_attention'"
    ):
        outputs(model, batch)

"""Visual prompt tuning and ladder side-tuning: counts, formulas in plain torch, graphs, and bad input."""

from typing import ClassVar

import pytest
import torch
import transformers
from torch.nn import functional

from weft.core import LSTConfig, STAdapterConfig, VPTConfig, attach, plan
from weft.core.errors import ConfigError
from weft.core.testing.backbones import tiny_backbone
from weft.core.testing.unit_contract import (
    UnitContract,
    adapted,
    checkpoint_activations,
    gradients,
    per_row_loss,
    slots_of,
)
from weft.core.testing.vision_language import CASES

LADDER = {"method": "lst", "reduction_factor": 4, "num_heads": 2}


class TestVariants(UnitContract):
    configs: ClassVar = [
        VPTConfig(name="shallow", length=2, depth="shallow"),
        LSTConfig(name="both", reduction_factor=4, num_heads=2, towers=("vision", "text"), side_layers=(1,)),
        STAdapterConfig(name="twice", frames=1, bottleneck_size=4, blocks=("attention", "ffn")),
    ]


@pytest.fixture(scope="module")
def vit():
    with torch.device("meta"):
        return transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)


def side_network(width, size, layers):
    """Parameters of a ladder: maps down, blocks with gates, and the way back up."""
    attention, ffn, norms = 4 * (size * size + size), 2 * 4 * size * size + 5 * size, 4 * size
    block = attention + ffn + norms + 1
    return (layers + 1) * (width * size + size) + layers * block + 2 * size + size * width + width


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"method": "vpt", "length": 50}, 460_800),
        ({"method": "vpt", "length": 10}, 92_160),
        ({"method": "vpt", "length": 50, "depth": "shallow"}, 50 * 768),
        ({"method": "lst"}, side_network(768, 96, 12)),
        ({"method": "st_adapter", "blocks": ["attention", "ffn"]}, 14_220_288),
        ({"method": "st_adapter", "blocks": ["ffn"]}, 7_110_144),
    ],
    ids=["VPT deep 50", "VPT deep 10", "VPT shallow", "LST", "ST-Adapter twice", "ST-Adapter before the FFN"],
)
def test_counts_on_a_vit_of_base_size(vit, method, expected):
    assert plan(vit, method).trainable_parameters == expected


def test_a_ladder_on_a_vit_of_base_size_has_these_many_parameters(vit):
    assert plan(vit, LSTConfig()).trainable_parameters == 2_376_492
    dropped = plan(vit, LSTConfig(side_layers=tuple(range(0, 12, 2))))
    # A layer without a block needs no map down either.
    assert dropped.trainable_parameters == 2_376_492 - 6 * (73_824 + 111_841)


@pytest.mark.parametrize("case", ["blip_retrieval", "siglip", "vit", "dinov2"])
@pytest.mark.parametrize(
    "method", [VPTConfig(length=2), VPTConfig(length=2, depth="shallow"), LSTConfig(**LADDER)]
)
def test_every_vision_tower_can_be_prompted_and_laddered(case, method):
    model, batch = CASES[case]()
    model.eval()
    expected = model(**batch)
    attach(model, method)
    found = model(**batch)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and name != "loss":
            assert found[name].shape == value.shape
    sum(value.float().square().sum() for value in found.values() if torch.is_tensor(value)).backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())


def clip(method, noise=0.3):
    """A tiny CLIP with every slot moved, and an equal one without units."""
    model, batch = adapted(method, "clip", None, noise=noise)
    return model, tiny_backbone("clip")[0], batch


@torch.no_grad()
def test_deep_prompts_are_new_in_every_layer_and_stand_behind_the_class_token():
    model, plain, _ = clip(VPTConfig(length=3))
    x = torch.randn(2, 5, 16)
    expected = x
    for number, layer in enumerate(plain.vision_model.encoder.layers):
        prompt = slots_of(model, f"vpt.vision.{number}.attention.")["prompt"].expand(2, -1, -1)
        out = layer(torch.cat([expected[:, :1], prompt, expected[:, 1:]], dim=1), None)
        expected = torch.cat([out[:, :1], out[:, 4:]], dim=1)
    found = model.vision_model.encoder(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_shallow_prompts_go_through_all_layers():
    model, plain, _ = clip(VPTConfig(length=3, depth="shallow"))
    assert len(list(model.weft.slots())) == 1
    x = torch.randn(2, 5, 16)
    prompt = slots_of(model, "vpt.vision.0.attention.first.")["prompt"].expand(2, -1, -1)
    longer = torch.cat([x[:, :1], prompt, x[:, 1:]], dim=1)
    out = plain.vision_model.encoder(inputs_embeds=longer).last_hidden_state
    found = model.vision_model.encoder(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(found, torch.cat([out[:, :1], out[:, 4:]], dim=1), atol=1e-6, rtol=1e-6)


def test_prompts_start_within_the_bound_of_their_patches_and_drop_out_in_training_alone():
    model, batch = tiny_backbone("clip")
    attach(model, VPTConfig(length=200, patch_size=8, dropout=0.5))
    bound = (6 / (3 * 64 + 16)) ** 0.5
    values = torch.cat([value.flatten() for _, _, value in model.weft.slots()])
    assert 0.98 * bound < values.abs().max() <= bound
    assert torch.equal(model(**batch).image_embeds, model(**batch).image_embeds)
    model.train()
    assert not torch.equal(model(**batch).image_embeds, model(**batch).image_embeds)


def reference(model, plain, x, address, *, residual=False):
    """What a ladder makes of the first layer's input, in plain torch."""

    def linear(value, w, name):
        return value @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(value, w, name):
        return functional.layer_norm(value, value.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    layers = plain.vision_model.encoder.layers
    side = linear(x, slots_of(model, f"{address}.0.attention.first."), "enter")
    for number, layer in enumerate(layers):
        role = {0: "first.", len(layers) - 1: "last."}.get(number, "")
        w = slots_of(model, f"{address}.{number}.attention.{role}")
        x = layer(x, None)
        gate = torch.sigmoid(w["gate"] / 0.1)
        side = gate * side + (1 - gate) * linear(x, w, "down")
        n = norm(side, w, "attention_norm")
        heads = []
        for q, k, v in zip(
            *(linear(n, w, name).chunk(2, -1) for name in ("query", "key", "value")), strict=True
        ):
            heads.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1) @ v)
        side = side + linear(torch.cat(heads, -1), w, "output")
        side = side + linear(functional.gelu(linear(norm(side, w, "ffn_norm"), w, "widen")), w, "narrow")
    found = linear(norm(side, w, "up_norm"), w, "up")
    return x + found if residual else found


@pytest.mark.parametrize("residual", [False, True], ids=["side alone", "with the tower's output"])
@torch.no_grad()
def test_a_ladder_climbs_from_layer_to_layer(residual):
    model, plain, _ = clip(LSTConfig(**LADDER, residual=residual))
    x = torch.randn(2, 5, 16)
    expected = reference(model, plain, x, "lst.vision", residual=residual)
    found = model.vision_model.encoder(inputs_embeds=x).last_hidden_state
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def kept_bytes(model, batch):
    """Bytes of what autograd keeps of a forward pass, without parameters; and what the loss needs to go back."""
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    storages = {}

    def pack(value):
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        result = model(**batch)
    return sum(storages.values()), result


def test_nothing_within_the_tower_is_kept_for_the_backward_pass():
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = transformers.ViTConfig(**sizes, image_size=64, patch_size=8)
    batch = {"pixel_values": torch.randn(4, 3, 64, 64)}
    kept = {}
    methods = {
        "lst": LSTConfig(num_heads=2, residual=False),  # so that a gradient passes its last map
        "lora": {"method": "lora", "rank": 8},
        "adaptformer": {"method": "adaptformer", "bottleneck_size": 8},
    }
    for name, method in methods.items():
        model = attach(transformers.ViTModel(config, add_pooling_layer=False), method)
        graphs = []
        for layer in model.layers:
            for module in layer.modules():
                if module is not layer:
                    module.register_forward_hook(
                        lambda _, __, out, graphs=graphs: graphs.append(
                            (out[0] if isinstance(out, tuple) else out).requires_grad
                        )
                    )
        kept[name], result = kept_bytes(model.train(), batch)
        assert any(graphs) == (name != "lst")
        result.last_hidden_state.square().sum().backward()
        assert (
            all(value.grad is not None and value.grad.any() for _, _, value in model.weft.slots())
            or name != "lst"
        )
        assert all(value.grad is None for value in model.parameters() if not value.requires_grad)
    assert 2 * kept["lst"] < min(kept["lora"], kept["adaptformer"])


@pytest.mark.parametrize(
    "method",
    [VPTConfig(length=2), VPTConfig(length=2, depth="shallow"), LSTConfig(**LADDER)],
    ids=["deep", "shallow", "ladder"],
)
def test_what_layers_hand_on_survives_gradient_checkpointing(method):
    found = []
    for checkpointing in (False, True):
        model, _, batch = clip(method)
        if checkpointing:
            checkpoint_activations(model)
        per_row_loss(model.train(), batch).sum().backward()
        found.append(gradients(model))
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(value, found[1][name]) for name, value in found[0].items())


def test_ladders_beside_both_towers_read_masks_as_the_layers_do():
    model, _, batch = clip(LSTConfig(**LADDER, towers=("vision", "text")))
    changed = batch["input_ids"].clone()
    changed[:, 4] = (changed[:, 4] + 1) % 90
    first = model.text_model(input_ids=batch["input_ids"]).last_hidden_state
    second = model.text_model(input_ids=changed).last_hidden_state
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])
    eager, _ = tiny_backbone("clip")
    eager.set_attn_implementation("eager")
    attach(eager, LSTConfig(**LADDER, towers=("vision", "text")))
    eager.weft.load_state_dict(model.weft.state_dict())
    again = eager.text_model(input_ids=batch["input_ids"]).last_hidden_state
    torch.testing.assert_close(again, first, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_st_adapter_before_the_feed_forward_block_changes_the_stream_there():
    frames = 3
    model, plain, _ = clip(
        {"method": "st_adapter", "bottleneck_size": 4, "frames": frames, "blocks": ["ffn"]}
    )
    w = slots_of(model, "st_adapter.vision.0.ffn.")
    x = torch.randn(2 * frames, 5, 16)
    layer = plain.vision_model.encoder.layers[0]
    middle = x + layer.self_attn(layer.layer_norm1(x))[0]
    hidden = (middle[:, 1:] @ w["down.weight"] + w["down.bias"]).unflatten(0, (2, frames))
    padded = functional.pad(hidden, (0, 0, 0, 0, 1, 1))
    mixed = sum(w["conv.weight"][k] * padded[:, k : k + frames] for k in range(3)) + w["conv.bias"]
    middle[:, 1:] += mixed.flatten(0, 1) @ w["up.weight"] + w["up.bias"]
    expected = middle + layer.mlp(layer.layer_norm2(middle))
    found = model.vision_model.encoder.layers[0](x, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "method", "message"),
    [
        (
            "clip",
            {**LADDER, "layers": [0]},
            r"`layers` must be left out of 'lst', because .* but is \[0\]",
        ),
        ("clip", {**LADDER, "side_layers": [1, 7]}, r"layers of vision \(0 to 1\), but names \[7\]"),
        ("clip", {**LADDER, "reduction_factor": 3}, r"must divide the width of .* \(16\), but is 3"),
        ("clip", {**LADDER, "num_heads": 3}, r"must divide the side network's width \(4\), but is 3"),
        (
            "bart",
            {**LADDER, "towers": ["text"]},
            "text.decoder.0.attention stands in one with cross-attention",
        ),
        (
            "clip",
            [LADDER, {"method": "lora", "rank": 2, "towers": ["vision"]}],
            r"'lst' must be alone in the layers it goes along, .* but 'lora' would train vision_model",
        ),
        ("clip", {**LADDER, "train_full": ["norms"]}, "but 'norms' would train .*layer_norm"),
    ],
    ids=["layers", "side layers", "factor", "heads", "cross-attention", "LoRA", "norms"],
)
def test_what_does_not_fit_is_refused(backbone, method, message):
    model, _ = tiny_backbone(backbone)
    with pytest.raises(ValueError, match=message):
        attach(model, method)


def test_a_ladder_and_other_units_learn_in_towers_of_their_own():
    model, batch = tiny_backbone("clip")
    attach(model, [LADDER, {"method": "lora", "rank": 2, "towers": ["text"]}])
    model(**batch).loss.backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())


def test_shallow_prompts_may_leave_out_ends_but_no_layer_between():
    with torch.device("meta"):
        model = transformers.ViTModel(transformers.ViTConfig(num_hidden_layers=4))
    assert plan(model, VPTConfig(depth="shallow", layers=(1, 2))).trainable_parameters == 10 * 768
    assert plan(model, VPTConfig(layers=(0, 3))).trainable_parameters == 2 * 10 * 768
    with pytest.raises(ConfigError, match=r"`layers` must follow one another .* but are \[0, 2\]"):
        plan(model, VPTConfig(depth="shallow", layers=(0, 2)))


def test_towers_that_lay_rows_behind_one_another_are_refused():
    model, _ = CASES["qwen2_5_vl"]()
    for method in (VPTConfig(), LSTConfig(towers=("vision",), reduction_factor=4, num_heads=2)):
        with pytest.raises(ConfigError, match="must have a row of its own for every input"):
            plan(model, method)


def test_masks_and_caches_that_units_know_nothing_of_are_refused():
    model, batch = tiny_backbone("clip")
    attach(model, VPTConfig(length=2, towers=("text",)))
    masked = {**batch, "attention_mask": (batch["input_ids"] != 5).long()}
    masked["attention_mask"][0, 0] = 0
    with pytest.raises(ConfigError, match=r"text\.0\.attention is called with `attention_mask`"):
        model(**masked)
    layer = attach(tiny_backbone("clip")[0], LADDER).vision_model.encoder.layers[0]
    layer_input = torch.randn(2, 5, 16)
    with pytest.raises(ConfigError, match=r"`use_cache` must be false with 'lst', but vision\.0\.attention"):
        layer(layer_input, None, past_key_values=object())

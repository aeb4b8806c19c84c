"""AdaptFormer, Convpass, ST-Adapter, AIM and MMA: published counts, formulas in plain torch, and bad input."""

import pytest
import torch
import transformers
from torch.nn import functional

from weft.core import attach, plan
from weft.core.errors import ConfigError
from weft.core.testing.backbones import tiny_backbone
from weft.core.testing.unit_contract import adapted, slots_of

FRAMES = 3


@pytest.fixture(scope="module")
def vit():
    with torch.device("meta"):
        return transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"method": "adaptformer"}, 1_189_632),
        ({"method": "convpass"}, 327_552),
        ({"method": "st_adapter"}, 7_110_144),
        ({"method": "aim", "temporal_embedding": False}, 10_651_392),
        ({"method": "aim"}, 10_651_392 + 8 * 768),
    ],
    ids=["AdaptFormer", "Convpass", "ST-Adapter", "AIM", "AIM with its embedding"],
)
def test_counts_on_a_vit_of_base_size(vit, method, expected):
    assert plan(vit, method).trainable_parameters == expected


def test_counts_of_mma_on_clip():
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config={"patch_size": 16}))
    planned = plan(model, {"method": "mma"})
    assert planned.trainable_parameters == 674_560
    assert {site.layer for site in planned.sites} == set(range(4, 12))
    assert plan(model, {"method": "mma", "layers": [0]}).trainable_parameters == 674_560 // 8


@pytest.fixture(scope="module")
def blip():
    with torch.device("meta"):
        config = transformers.BlipConfig(text_config={"num_attention_heads": 12})
        return transformers.BlipForImageTextRetrieval(config)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ({"method": "lora", "rank": 8}, 884_736),
        ({"method": "lora", "rank": 32}, 3_538_944),
        (
            {"method": "lora", "rank": 32, "linears": ["query", "key", "value", "output"]},
            7_077_888,
        ),
        (
            {"method": "lora", "rank": 32, "linears": ["query", "key", "value", "output", "up", "down"]},
            12_976_128,
        ),
        ({"method": "lora", "rank": 8, "magnitude": True}, 884_736 + 55_296),
        ({"method": "ia3"}, 129_024),
        ({"method": "bitfit"}, 251_650),
    ],
    ids=["q v", "q v of rank 32", "attention", "all maps", "DoRA", "(IA)³", "BitFit"],
)
def test_counts_of_other_methods_on_blip(blip, method, expected):
    assert plan(blip, method).trainable_parameters == expected


def vision(method, noise=0.3):
    """A tiny CLIP with every slot moved, its first vision layer, and one tensor of each name at that layer."""
    return adapted(method, "clip", None, noise=noise)


def layer_parts(x):
    """A fresh, equal tower's first layer, its stream behind attention and its output, for an input."""
    plain, _ = tiny_backbone("clip")
    layer = plain.vision_model.encoder.layers[0]
    middle = x + layer.self_attn(layer.layer_norm1(x))[0]
    return layer, middle, layer(x, None)


@torch.no_grad()
def test_adaptformer_reads_the_stream_before_the_norm():
    for norm in (False, True):
        model, _ = vision({"method": "adaptformer", "bottleneck_size": 4, "norm": norm})
        w = slots_of(model, "adaptformer.vision.0.ffn.")
        x = torch.randn(2, 5, 16)
        _, middle, out = layer_parts(x)
        if norm:
            middle = functional.layer_norm(middle, (16,), w["norm.weight"], w["norm.bias"])
        delta = torch.relu(middle @ w["down.weight"] + w["down.bias"]) @ w["up.weight"] + w["up.bias"]
        found = model.vision_model.encoder.layers[0](x, None)
        torch.testing.assert_close(found, out + 0.1 * delta, atol=1e-5, rtol=1e-5)


def test_adaptformer_drops_hidden_values_in_training_alone():
    model, batch = vision({"method": "adaptformer", "bottleneck_size": 4, "dropout": 0.5})
    model.eval()
    assert torch.equal(model(**batch).image_embeds, model(**batch).image_embeds)
    model.train()
    first, second = model(**batch), model(**batch)
    assert not torch.equal(first.image_embeds, second.image_embeds)
    assert torch.equal(first.text_embeds, second.text_embeds)
    # What stays is scaled up, so that the mean is that of evaluation.
    torch.manual_seed(0)
    many = torch.stack([model.vision_model(batch["pixel_values"]).last_hidden_state for _ in range(400)])
    model.eval()
    plain = model.vision_model(batch["pixel_values"]).last_hidden_state
    assert (many.mean(dim=0) - plain).abs().mean() < 0.15 * (many[0] - plain).abs().mean()


@torch.no_grad()
def test_convpass_convolves_the_patches_and_the_class_token_alone():
    model, _ = vision({"method": "convpass", "bottleneck_size": 4, "scale": 0.5, "blocks": ["ffn"]})
    w = slots_of(model, "convpass.vision.0.ffn.")
    x = torch.randn(2, 5, 16)
    layer, middle, out = layer_parts(x)

    def g(value):
        return value * torch.sigmoid(1.702 * value)

    hidden = g(layer.layer_norm2(middle) @ w["down.weight"] + w["down.bias"])
    mixed = torch.empty_like(hidden)
    for row in range(2):
        grid = hidden[row, 1:].T.reshape(1, 4, 2, 2)
        mixed[row, 1:] = functional.conv2d(grid, w["conv.weight"], w["conv.bias"], padding=1)[0].flatten(1).T
        mixed[row, 0] = w["conv.weight"][:, :, 1, 1] @ hidden[row, 0] + w["conv.bias"]
    delta = g(mixed) @ w["up.weight"] + w["up.bias"]
    found = model.vision_model.encoder.layers[0](x, None)
    torch.testing.assert_close(found, out + 0.5 * delta, atol=1e-5, rtol=1e-5)
    with pytest.raises(
        ConfigError, match=r"a square of patches to convolve, but vision\.0\.ffn has 4 tokens"
    ):
        model.vision_model.encoder.layers[0](x[:, :4], None)


@torch.no_grad()
def test_st_adapter_mixes_each_channel_over_frames():
    model, _ = vision({"method": "st_adapter", "bottleneck_size": 4, "frames": FRAMES})
    w = slots_of(model, "st_adapter.vision.0.attention.")
    x = torch.randn(2 * FRAMES, 5, 16)
    hidden = (x[:, 1:] @ w["down.weight"] + w["down.bias"]).unflatten(0, (2, FRAMES))
    # As a three-dimensional convolution over (time, height, width).
    volume = hidden.unflatten(2, (2, 2)).permute(0, 4, 1, 2, 3)
    kernel = w["conv.weight"].T[:, None, :, None, None]
    mixed = functional.conv3d(volume, kernel, w["conv.bias"], padding=(1, 0, 0), groups=4)
    mixed = mixed.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)
    moved = x.clone()
    moved[:, 1:] += mixed @ w["up.weight"] + w["up.bias"]
    _, _, out = layer_parts(moved)
    found = model.vision_model.encoder.layers[0](x, None)
    torch.testing.assert_close(found, out, atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match=r"`frames` must divide the rows of vision\.0\.attention \(5\)"):
        model.vision_model.encoder.layers[0](x[:5], None)
    with pytest.raises(ConfigError, match="`kernel_size` must be odd, but is 2"):
        plan(model, {"method": "st_adapter", "kernel_size": 2})


@torch.no_grad()
def test_aim_attends_over_time_with_the_frozen_attention():
    model, _ = vision({"method": "aim", "bottleneck_size": 4, "frames": FRAMES})
    x = torch.randn(2 * FRAMES, 5, 16)

    def branch(where, value):
        w = slots_of(model, f"aim.vision.0.{where}.")
        return functional.gelu(value @ w["down.weight"] + w["down.bias"]) @ w["up.weight"] + w["up.bias"]

    plain, _ = tiny_backbone("clip")
    layer = plain.vision_model.encoder.layers[0]
    place = slots_of(model, "aim.vision.0.attention.temporal.")["embedding"]
    y = x + place.repeat(2, 1)[:, None]
    over_time = torch.empty_like(y)
    for video in range(2):
        rows = slice(video * FRAMES, (video + 1) * FRAMES)
        stream = y[rows].transpose(0, 1)
        over_time[rows] = layer.self_attn(layer.layer_norm1(stream))[0].transpose(0, 1)
    y = y + branch("attention.temporal", over_time)
    mixed = layer.self_attn(layer.layer_norm1(y))[0]
    y = y + mixed + branch("attention", mixed)
    normed = layer.layer_norm2(y)
    expected = y + layer.mlp(normed) + 0.5 * branch("ffn", normed)
    found = model.vision_model.encoder.layers[0](x, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_aim_starts_as_the_backbone_and_then_sees_the_order_of_frames():
    plain, batch = tiny_backbone("clip")
    pixels = batch["pixel_values"][:FRAMES]
    expected = plain.vision_model(pixels).last_hidden_state
    model, _ = tiny_backbone("clip")
    attach(model, {"method": "aim", "bottleneck_size": 4, "frames": FRAMES})
    torch.testing.assert_close(model.vision_model(pixels).last_hidden_state, expected, atol=1e-6, rtol=1e-6)
    model, _ = vision({"method": "aim", "bottleneck_size": 4, "frames": FRAMES})
    pooled = [model.vision_model(frames).last_hidden_state.mean(dim=0) for frames in (pixels, pixels.flip(0))]
    assert (pooled[0] - pooled[1]).abs().max() > 1e-3


@torch.no_grad()
def test_mma_shares_one_map_between_the_towers():
    model, _ = vision({"method": "mma", "bottleneck_size": 4, "scale": 0.5})
    shared = slots_of(model, "mma.shared.0.attention.")
    assert set(shared) == {"core.weight", "core.bias"}
    w = slots_of(model, "mma.vision.0.attention.")
    x = torch.randn(2, 5, 16)
    layer, _, out = layer_parts(x)
    hidden = torch.relu(layer.layer_norm1(x) @ w["down.weight"] + w["down.bias"])
    hidden = torch.relu(hidden @ shared["core.weight"] + shared["core.bias"])
    expected = out + 0.5 * (hidden @ w["up.weight"] + w["up.bias"])
    found = model.vision_model.encoder.layers[0](x, None)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("adaptformer", r"must have the residual stream before .* none at text\.encoder\.0\.ffn"),
        ("aim", r"must have the residual stream before .* none at text\.encoder\.0\.attention"),
    ],
)
def test_families_that_do_not_name_their_norms_are_refused(method, message):
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match=message):
        attach(model, {"method": method, "towers": ["text"], "stacks": ["encoder"]})

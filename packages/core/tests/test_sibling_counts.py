"""Counts of methods that UniAdapter is compared with, and UniAdapter on dual encoders of unequal width."""

import pytest
import torch
import transformers
from torch.nn import functional

from weft.core import attach, plan

_TEXT = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VISION = {**_TEXT, "hidden_size": 24, "image_size": 16, "patch_size": 8}
CORED = {
    "method": "uniadapter",
    "bottleneck_size": 4,
    "branches": ["text", "vision"],
    "norm": False,
    "core": True,
    "sharing": {"down": ["task"], "up": ["task"]},
}


def on_meta(kind, config):
    with torch.device("meta"):
        return kind(config)


def blip(kind):
    return on_meta(kind, transformers.BlipConfig(text_config={"num_attention_heads": 12}))


@pytest.mark.parametrize(
    ("model", "method", "expected"),
    [
        (blip(transformers.BlipForImageTextRetrieval), {"method": "lora", "rank": 16}, 1_769_472),
        (blip(transformers.BlipForQuestionAnswering), {"method": "bitfit"}, 431_420),
        (blip(transformers.BlipForImageTextRetrieval), {"method": "bitfit"}, 251_650),
        (
            on_meta(transformers.CLIPModel, transformers.CLIPConfig(vision_config={"patch_size": 16})),
            {"method": "bitfit"},
            171_008,
        ),
        (blip(transformers.BlipForImageTextRetrieval), {"method": "vpt", "length": 50}, 460_800),
        (blip(transformers.BlipForImageTextRetrieval), {"method": "adaptformer"}, 1_189_632),
        (
            blip(transformers.BlipForImageTextRetrieval),
            {"method": "st_adapter", "blocks": ["attention", "ffn"]},
            14_220_288,
        ),
        (
            blip(transformers.BlipForImageTextRetrieval),
            {"method": "frozen", "train_full": ["projector", "head"]},
            395_266,
        ),
    ],
    ids=[
        "LoRA",
        "BitFit on VQA",
        "BitFit on retrieval",
        "BitFit on CLIP",
        "VPT",
        "AdaptFormer",
        "ST-Adapter",
        "heads alone",
    ],
)
def test_counts(model, method, expected):
    assert plan(model, method).trainable_parameters == expected


def test_bitfit_stays_out_of_towers_that_were_not_chosen_and_misses_no_bias():
    model = blip(transformers.BlipForImageTextRetrieval)
    trained = {full.path for full in plan(model, {"method": "bitfit", "towers": ["text"]}).full}
    assert {"text_proj.bias", "vision_proj.bias", "itm_head.bias"} < trained
    assert not any(path.startswith("vision_model.") for path in trained)
    siglip = on_meta(transformers.SiglipModel, transformers.SiglipConfig())
    trained = {full.path for full in plan(siglip, {"method": "bitfit"}).full}
    assert "vision_model.head.attention.in_proj_bias" in trained
    assert "logit_bias" not in trained


def unequal(kind, config, text):
    torch.manual_seed(0)
    model = kind(config(text_config={**_TEXT, **text}, vision_config=_VISION))
    return model.eval()


@pytest.mark.parametrize(
    "build",
    [
        lambda: unequal(
            transformers.CLIPModel,
            transformers.CLIPConfig,
            {"vocab_size": 100, "eos_token_id": 99, "bos_token_id": 98, "pad_token_id": 97},
        ),
        lambda: unequal(
            transformers.SiglipModel, transformers.SiglipConfig, {"vocab_size": 100, "projection_size": 24}
        ),
    ],
    ids=["CLIP", "SigLIP"],
)
def test_dual_encoders_of_unequal_width_learn_one_core_from_both_towers(build):
    model = attach(build(), CORED)
    torch.manual_seed(1)
    slots = {key: value for key, _, value in model.weft.slots()}
    with torch.no_grad():
        for value in slots.values():
            value.add_(0.3 * torch.randn_like(value))
    cores = [key for key in slots if ".core." in key]
    assert len(cores) == 2 * 2
    assert all(".shared." in key for key in cores)
    pixels, ids = torch.randn(2, 3, 16, 16), torch.full((2, 6), 99)
    # One layer, by the formula: both towers go through the same core.
    for tower, width in (("text", 16), ("vision", 24)):
        layer = getattr(model, f"{tower}_model").encoder.layers[0]
        x = torch.randn(2, 5, width)
        w = {key.removeprefix(f"uniadapter.{tower}.0.ffn."): value for key, value in slots.items()}
        core = {name: slots[f"uniadapter.shared.0.ffn.core.{name}"] for name in ("weight", "bias")}
        with torch.no_grad():
            with model.disable_adapter():
                plain = layer(x, None)
                middle = x + layer.self_attn(layer.layer_norm1(x), None)[0]
            hidden = torch.relu(middle @ w["down.weight"] + w["down.bias"])
            hidden = torch.relu(hidden @ core["weight"] + core["bias"])
            expected = plain + 0.1 * (hidden @ w["up.weight"] + w["up.bias"])
            torch.testing.assert_close(layer(x, None), expected, atol=1e-5, rtol=1e-5)
    gradients = {}
    for tower, inputs in (("text", {"input_ids": ids}), ("vision", {"pixel_values": pixels})):
        model.zero_grad()
        getattr(model, f"{tower}_model")(**inputs).last_hidden_state.square().sum().backward()
        gradients[tower] = slots[cores[0]].grad
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())
    assert functional.cosine_similarity(*(g.flatten() for g in gradients.values()), dim=0) < 0.999

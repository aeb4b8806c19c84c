"""MMRL against layers called by hand, its loss, and masks that tokens make longer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from weft.core.few_shot import AdaptableEncoder, ImageTextEncoder, make_head
from weft.core.few_shot.layer_tokens import LayerTokens, _longer
from weft.core.testing.processed import encoders

NAMES = ["red square", "small blue circle", "star"]


def encoder_of(attention: str = "sdpa") -> ImageTextEncoder:
    torch.manual_seed(0)
    model, processor = encoders.clip()
    model.set_attn_implementation(attention)
    return ImageTextEncoder(model, processor.tokenizer)


def test_tokens_stand_behind_the_first_one_and_leave_behind_the_layer() -> None:
    encoder = encoder_of()
    model, images = encoder.model, torch.randn(2, 3, 32, 32)
    tokens = [torch.randn(3, 16) for _ in range(2)]
    places = LayerTokens(model, 7)
    assert (places.widths, {tower: len(found) for tower, found in places.layers.items()}) == (
        {"text": 16, "vision": 16},
        {"text": 2, "vision": 2},
    )
    with torch.no_grad(), places.inserted("vision", tokens) as made:
        found = encoder.encode_images(images)
    vision = model.vision_model
    with torch.no_grad():
        states = vision.pre_layrnorm(vision.embeddings(images))
        for layer, own in zip(vision.encoder.layers, tokens, strict=True):
            longer = layer(torch.cat([states[:, :1], own.expand(2, -1, -1), states[:, 1:]], 1), None)
            last, states = longer[:, 1:4], torch.cat([longer[:, :1], longer[:, 4:]], 1)
        expected = model.visual_projection(vision.post_layernorm(states[:, 0]))
    torch.testing.assert_close(found, functional.normalize(expected, dim=-1))
    torch.testing.assert_close(made[0], last)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_text_does_not_see_what_follows_nor_its_padding(attention: str) -> None:
    encoder = encoder_of(attention)
    places, tokens = LayerTokens(encoder.model, 1), [torch.randn(3, 16)]
    with places.inserted("text", tokens):
        together = encoder.encode_texts(NAMES)  # padded to one length
        apart = torch.cat([encoder.encode_texts([name]) for name in NAMES])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together, _by(encoder_of("sdpa"), tokens), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(together, encoder.encode_texts(NAMES), atol=1e-3)


def _by(encoder: ImageTextEncoder, tokens: list[torch.Tensor]) -> torch.Tensor:
    with LayerTokens(encoder.model, 1).inserted("text", tokens):
        return encoder.encode_texts(NAMES)


@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_longer_mask_is_that_of_a_longer_causal_text(kind: str) -> None:
    seen = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
    seen[1, :, :, 3] = False  # padding
    expected = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    expected[1, :, :, 5] = False
    least = torch.finfo(torch.float32).min
    mask = seen if kind == "bool" else torch.zeros(seen.shape).masked_fill(~seen, least)
    wanted = expected if kind == "bool" else torch.zeros(expected.shape).masked_fill(~expected, least)
    assert torch.equal(_longer(mask, 2), wanted)


def test_its_loss_is_the_stated_one() -> None:
    encoder = encoder_of()
    head: Any = make_head(
        encoder.class_weights(NAMES),
        {"method": "mmrl", "epochs": 0, "token_size": 8, "logit_scale": 10.0, "penalty": 2.0, "share": 0.7},
    )
    head.use_encoder(AdaptableEncoder(encoder, NAMES))
    images, labels = torch.randn(3, 3, 32, 32), torch.arange(3)
    head.fit(images, labels)
    head.requires_grad_(True)
    first, second = head._both(head.adaptable, images)
    names, plain = head.class_features(), encoder.encode_images(images)
    cross = [functional.cross_entropy(10 * one @ names.T, labels) for one in (first, second)]
    apart = (1 - (first * plain).sum(-1)).mean() + (1 - (names * head.class_weights).sum(-1)).mean()
    torch.testing.assert_close(head._loss(images, labels), 0.7 * cross[0] + 0.3 * cross[1] + 2 * apart)
    head._loss(images, labels).backward()
    assert all(value.grad is not None and bool(value.grad.abs().sum() > 0) for value in head.parameters())
    head.requires_grad_(False)
    expected = 10 * (0.7 * first + 0.3 * second) @ names.T
    torch.testing.assert_close(head.logits(images), expected.detach(), rtol=1e-4, atol=1e-4)
    drawn = torch.get_rng_state()
    moved = head.for_classes(head.class_weights, AdaptableEncoder(encoder, NAMES))
    assert torch.equal(torch.get_rng_state(), drawn)
    torch.testing.assert_close(moved.logits(images), (10 * first @ names.T).detach(), rtol=1e-4, atol=1e-4)

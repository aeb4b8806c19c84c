"""Texts are padded as their model was trained to read them, so that none depends on the others of its batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional
from transformers import (
    CLIPConfig,
    CLIPModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

from weft.core.backbone.text_length import fixed_text_length, register_fixed_length
from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.few_shot import ContextPrompts, ImageTextEncoder
from weft.core.testing.processed.words import word_tokenizer

LENGTH = 16
WORDS = ["<s>", "</s>", "<pad>", "<unk>", "a", "photo", "of", "x", "red", "fox", "sea", "lion", "owl", "."]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    **SIZES,
    "vocab_size": len(WORDS),
    "max_position_embeddings": LENGTH,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
VISION = {**SIZES, "image_size": 16, "patch_size": 8}
SHORT, LONG = "owl", "a photo of a red sea lion fox ."


def dual() -> DualEncoder:
    text = {"model_type": "bert", **TEXT, "num_hidden_layers": 1}
    vision = {"model_type": "clip_vision_model", **VISION}
    return DualEncoder(DualEncoderConfig(text, vision, projection_size=12))


MODELS = {
    "clip": lambda: CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=12)),
    "siglip": lambda: SiglipModel(SiglipConfig(text_config=TEXT, vision_config=VISION)),
    "siglip2": lambda: Siglip2Model(
        Siglip2Config(text_config=TEXT, vision_config={**VISION, "num_patches": 4})
    ),
    "dual encoder": dual,
}
BARE, MASKED = ["input_ids"], ["input_ids", "attention_mask"]


@pytest.mark.parametrize(
    ("name", "side", "inputs"),
    [
        ("clip", "right", MASKED),
        ("dual encoder", "right", MASKED),
        *(
            (name, side, inputs)
            for name in ("siglip", "siglip2")
            for side in ("right", "left")
            for inputs in (BARE, MASKED)
        ),
    ],
)
def test_a_text_has_the_features_it_has_alone(name: str, side: str, inputs: list[str]) -> None:
    torch.manual_seed(0)
    encoder = ImageTextEncoder(
        MODELS[name](), word_tokenizer(WORDS, padding_side=side, model_input_names=inputs)
    )
    texts = [SHORT, LONG, "sea lion"]
    together = encoder.encode_texts(texts)
    alone = torch.cat([encoder.encode_texts([text]) for text in texts])
    torch.testing.assert_close(together, alone)
    assert fixed_text_length(encoder.model) == (LENGTH if "siglip" in name else None)


def test_the_texts_of_siglip_are_those_of_its_own_rule() -> None:
    torch.manual_seed(0)
    encoder = ImageTextEncoder(MODELS["siglip"](), word_tokenizer(WORDS, model_input_names=["input_ids"]))
    own = encoder.tokenizer([SHORT], padding="max_length", max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        expected = functional.normalize(encoder.model.get_text_features(**own).pooler_output, dim=-1)
    assert torch.equal(encoder.encode_texts([SHORT]), expected)


def test_a_limit_of_the_user_cuts_texts_and_does_not_shorten_the_padding() -> None:
    torch.manual_seed(0)
    encoder = ImageTextEncoder(MODELS["siglip"](), word_tokenizer(WORDS), max_text_tokens=5)
    tokens = encoder.tokens([SHORT, LONG])
    assert tokens["input_ids"].shape == (2, LENGTH)
    assert tokens["input_ids"][1, :6].tolist() == [0, 4, 5, 6, 1, 2]


def test_prompts_are_learned_at_the_length_of_the_model() -> None:
    torch.manual_seed(0)
    encoder = ImageTextEncoder(MODELS["siglip"](), word_tokenizer(WORDS))
    one, two = (
        ContextPrompts(encoder, names, context_tokens=2) for names in (["owl"], ["owl", "red sea lion"])
    )
    context = torch.randn(2, 16)
    torch.testing.assert_close(one(context)[0], two(context)[0])


def test_models_from_outside_can_declare_their_length() -> None:
    config = SimpleNamespace(model_type="model_of_a_third_party", max_position_embeddings=9)
    assert fixed_text_length(SimpleNamespace(config=config)) is None
    register_fixed_length([config.model_type])
    assert fixed_text_length(SimpleNamespace(config=config)) == 9

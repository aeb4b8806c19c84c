"""Encoders of several libraries give the same unit features, and prompts are learned through them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.errors import BackboneError, FewShotError
from weft.core.few_shot import (
    CoCoOp,
    CoCoOpConfig,
    ContextPrompts,
    CoOp,
    CoOpConfig,
    ImageTextEncoder,
    XMAdapter,
    XMAdapterConfig,
    load_head,
)
from weft.core.few_shot.encoder import unit
from weft.core.testing.processed.words import word_tokenizer

NAMES = ["red fox", "sea_lion", "owl"]
WORDS = ["<s>", "</s>", "<pad>", "<unk>", "a", "photo", "of", "x", "red", "fox", "sea", "lion", "owl", "."]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return word_tokenizer(WORDS)


@pytest.fixture(scope="module")
def encoder(tokenizer: PreTrainedTokenizerFast) -> ImageTextEncoder:
    torch.manual_seed(0)
    return ImageTextEncoder(CLIPModel(CLIPConfig(**tiny(len(WORDS)))), tokenizer)


def tiny(vocabulary: int) -> dict[str, Any]:
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    return {
        "text_config": {**size, **tokens, "vocab_size": vocabulary, "max_position_embeddings": 24},
        "vision_config": {**size, "image_size": 16, "patch_size": 8},
        "projection_dim": 12,
    }


def test_objects_and_tensors_and_open_clip_give_the_same_features(encoder: ImageTextEncoder) -> None:
    pixels = torch.randn(3, 3, 16, 16)
    model = encoder.model
    expected = functional.normalize(
        model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output), dim=-1
    )
    torch.testing.assert_close(encoder.encode_images(pixels), expected.detach())

    class OpenClip(nn.Module):
        """The two methods of open_clip, over the same weights."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def encode_image(self, image: torch.Tensor) -> torch.Tensor:
            return 3 * self.inner.get_image_features(pixel_values=image).pooler_output

        def encode_text(self, text: torch.Tensor) -> torch.Tensor:
            return self.inner.get_text_features(input_ids=text).pooler_output

    def to_ids(texts: list[str]) -> torch.Tensor:
        return encoder.tokenizer(texts, padding=True, return_tensors="pt")["input_ids"]

    other = ImageTextEncoder(OpenClip(), to_ids)
    torch.testing.assert_close(other.encode_images(pixels), expected.detach())
    torch.testing.assert_close(
        other.encode_texts(["owl", "red fox"]), encoder.encode_texts(["owl", "red fox"])
    )
    torch.testing.assert_close(unit(SimpleNamespace(pooler_output=2 * expected)), expected)
    with pytest.raises(BackboneError, match="must return a tensor or an object with `pooler_output`"):
        unit(("a", "tuple"))
    with pytest.raises(BackboneError, match=r"`model` must have get_image_features .* Linear has neither"):
        ImageTextEncoder(nn.Linear(2, 2), encoder.tokenizer)


def test_class_weights_are_means_over_templates(encoder: ImageTextEncoder) -> None:
    weights = encoder.class_weights(NAMES, ["a photo of a {}.", "{}"])
    two = torch.stack([encoder.encode_texts([f"a photo of a {n}."])[0] for n in ("sea lion",)])
    expected = functional.normalize((two[0] + encoder.encode_texts(["sea lion"])[0]) / 2, dim=-1)
    torch.testing.assert_close(weights[1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weights.norm(dim=1), torch.ones(3))


def test_names_and_templates_are_checked(encoder: ImageTextEncoder) -> None:
    with pytest.raises(FewShotError, match="`class_names` must differ, but 1 are repeated: owl"):
        encoder.class_weights(["owl", "owl"])
    same = encoder.class_weights(["owl", "owl"], allow_duplicates=True)
    assert torch.equal(same[0], same[1])
    with pytest.raises(FewShotError, match="at least one name and no empty one"):
        encoder.class_weights(["owl", " "])
    with pytest.raises(FewShotError, match=r"texts with one \{\} for the class name, but are \['a photo'\]"):
        encoder.class_weights(["owl"], ["a photo"])


def test_the_fingerprint_knows_the_weights(
    encoder: ImageTextEncoder, tokenizer: PreTrainedTokenizerFast
) -> None:
    same = CLIPModel(encoder.model.config)
    same.load_state_dict(encoder.model.state_dict())
    assert ImageTextEncoder(same, tokenizer).fingerprint() == encoder.fingerprint()
    other = ImageTextEncoder(same, tokenizer)
    weight = same.text_model.get_input_embeddings().weight.detach()
    weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(torch.inf))
    assert other.fingerprint() != encoder.fingerprint()


def test_a_context_of_word_embeddings_is_the_text_of_these_words(encoder: ImageTextEncoder) -> None:
    prompts = ContextPrompts(encoder, NAMES, context_tokens=4)
    words = prompts.embed("a photo of a")
    assert words.shape == (4, 16)
    expected = encoder.encode_texts([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    torch.testing.assert_close(prompts(words), expected, rtol=1e-4, atol=1e-5)
    assert not encoder.model.text_model.get_input_embeddings()._forward_hooks
    with pytest.raises(
        BackboneError, match="fits 40 times into a text of 24 tokens, but 'x', 'a', 'of' do not"
    ):
        ContextPrompts(encoder, NAMES, context_tokens=40)


def test_prompts_are_learned_through_the_dual_encoder_of_weft(tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "clip_text_model", "vocab_size": len(WORDS), "max_position_embeddings": 24, **size}
    vision = {"model_type": "clip_vision_model", "image_size": 16, "patch_size": 8, **size}
    own = ImageTextEncoder(DualEncoder(DualEncoderConfig(text, vision, projection_size=12)), tokenizer)
    prompts = ContextPrompts(own, NAMES, context_tokens=4)
    context = prompts.embed("a photo of a").requires_grad_()
    expected = own.encode_texts([f"a photo of a {name.replace('_', ' ')}." for name in NAMES])
    torch.testing.assert_close(prompts(context), expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(prompts(context)[0, 0], context)
    assert bool(gradient.abs().sum() > 0)


def test_a_placeholder_is_a_word_of_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = Tokenizer(models.BPE({"x": 0, "a": 1, "▁": 2, "▁a": 3, ".": 4}, [("▁", "a")]))
    pieces.pre_tokenizer = pre_tokenizers.Metaspace()
    encoder = ImageTextEncoder(
        CLIPModel(CLIPConfig(**tiny(5))), PreTrainedTokenizerFast(tokenizer_object=pieces, pad_token=".")
    )
    prompts = ContextPrompts(encoder, ["a"], context_tokens=3)
    assert prompts._tokens["input_ids"][0, :3].tolist() == [3, 3, 3]
    with pytest.raises(
        BackboneError, match=r"`placeholder` must be a word of one token .*, but 'x' does not"
    ):
        ContextPrompts(encoder, ["a"], context_tokens=3, placeholder="x")


def test_many_contexts_go_through_together(encoder: ImageTextEncoder) -> None:
    prompts = ContextPrompts(encoder, NAMES, context_tokens=4)
    contexts = torch.randn(2, 3, 4, 16)
    found = prompts(contexts)
    assert found.shape == (2, 3, 3, 12)
    torch.testing.assert_close(found[1, 2], prompts(contexts[1, 2]), rtol=1e-4, atol=1e-5)


def test_a_learned_context_stands_before_other_names(encoder: ImageTextEncoder) -> None:
    features, labels = features_for(encoder)
    weights = encoder.class_weights(NAMES)
    options = {"context_tokens": 4, "context_width": 16, "epochs": 2}
    others = ["fox", "red owl"]
    prompts = ContextPrompts(encoder, others, context_tokens=4)
    for head in (CoOp(weights, CoOpConfig(**options)), CoCoOp(weights, CoCoOpConfig(**options))):  # type: ignore[arg-type]
        with pytest.raises(FewShotError, match="must be fitted first, but is not"):
            head.for_classes(encoder.class_weights(others), prompts)
        head.use_prompts(ContextPrompts(encoder, NAMES, context_tokens=4))
        head.fit(features, labels)
        moved = head.for_classes(encoder.class_weights(others), prompts)
        assert moved.logits(features).shape == (12, 2)
        shifted = head.context + head.meta(features[5]) if isinstance(head, CoCoOp) else head.context
        expected = 100 * features[5] @ prompts(shifted).T
        torch.testing.assert_close(moved.logits(features)[5], expected, rtol=1e-4, atol=1e-3)
        assert not any(value.requires_grad for value in moved.parameters())


def features_for(encoder: ImageTextEncoder) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(3, 12, generator=generator)
    labels = torch.arange(3).repeat_interleave(4)
    noisy = means[labels] + 0.3 * torch.randn(12, 12, generator=generator)
    return functional.normalize(noisy, dim=-1), labels


@pytest.mark.parametrize("kind", ["coop", "cocoop"])
def test_prompts_are_learned_through_the_frozen_text_encoder(
    encoder: ImageTextEncoder, tmp_path, kind: str
) -> None:
    features, labels = features_for(encoder)
    weights = encoder.class_weights(NAMES)
    prompts = ContextPrompts(encoder, NAMES, context_tokens=4)
    before = [value.clone() for value in encoder.model.state_dict().values()]
    options = {"context_tokens": 4, "context_width": 16, "context": "a photo of a", "learning_rate": 0.05}
    head: CoOp
    if kind == "coop":
        head = CoOp(weights, CoOpConfig(epochs=30, **options))  # type: ignore[arg-type]
    else:
        head = CoCoOp(weights, CoCoOpConfig(epochs=3, **options))  # type: ignore[arg-type]
    head.use_prompts(prompts)
    head.fit(features, labels)
    start = functional.cross_entropy(100 * features @ weights.T, labels)
    assert float(functional.cross_entropy(head.logits(features), labels)) < 0.9 * float(start)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.model.state_dict().values(), strict=True))
    loaded = load_head(head.save(tmp_path))
    assert isinstance(loaded, CoOp)
    if kind == "cocoop":
        with pytest.raises(FewShotError, match="CoCoOp must have a text encoder to learn through"):
            loaded.logits(features)
        loaded.use_prompts(prompts)
    assert torch.equal(loaded.logits(features), head.logits(features))
    torch.testing.assert_close(head.class_features(), prompts(head.context))
    counted = head.config.trainable_parameters(num_classes=3, num_samples=12, width=12)
    meta = sum(value.numel() for value in head.meta.parameters()) if isinstance(head, CoCoOp) else 0
    assert counted == head.context.numel() + meta
    if kind == "coop":
        xm = XMAdapter(weights, XMAdapterConfig(epochs=0))
        xm.use_prompts(head.class_features())
        assert torch.equal(xm.fit(features, labels).prompt_weights, head.class_features())


def test_prompt_options_that_do_not_fit_are_refused(encoder: ImageTextEncoder) -> None:
    features, labels = features_for(encoder)
    weights = encoder.class_weights(NAMES)
    with pytest.raises(FewShotError, match="CoOp must have a text encoder to learn through, but has none"):
        CoOp(weights).fit(features, labels)
    prompts = ContextPrompts(encoder, NAMES, context_tokens=4)
    with pytest.raises(FewShotError, match=r"`context_width` must be the width of .* \(16\), but is 512"):
        CoOp(weights).use_prompts(prompts)
    head = CoOp(weights, CoOpConfig(context_width=16, context_tokens=4, context="a photo"))
    head.use_prompts(prompts)
    with pytest.raises(FewShotError, match=r"`context_tokens` must be the number of tokens of `context` \(2"):
        head.fit(features, labels)


class Described(nn.Module):
    """Reads a text as the number of its letters."""

    def __init__(self, **parameters: nn.Parameter) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))
        for name, value in parameters.items():
            self.register_parameter(name, value)

    def encode_image(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def encode_text(self, text: torch.Tensor) -> torch.Tensor:
        return text


def letters(texts: list[str]) -> torch.Tensor:
    return torch.tensor([[float(text.count("a")), float(text.count("b"))] for text in texts])


def test_a_class_is_the_mean_of_its_own_texts_and_of_the_templates() -> None:
    encoder = ImageTextEncoder(Described(), letters)
    texts = {"a": ["aaab", "ab"], "b": ["b"]}
    alone = encoder.class_weights(["a", "b"], (), texts=texts)
    beside = encoder.class_weights(["a", "b"], ("{}",), texts=texts)
    mean = functional.normalize(letters(["aaab", "ab"]), dim=-1).mean(0)
    assert torch.allclose(alone[0], functional.normalize(mean, dim=-1))
    mean = functional.normalize(letters(["a", "aaab", "ab"]), dim=-1).mean(0)
    assert torch.allclose(beside[0], functional.normalize(mean, dim=-1))


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"a": ["a"], "b": ["b"], "c": ["c"]}, r"a class of `class_texts` must be .* but is 'c'"),
        ({"a": ["a"]}, "lacks one about 1: b"),
        ({"a": ["a"], "b": [" "]}, "lacks one about 1: b"),
    ],
    ids=["unknown", "left out", "empty"],
)
def test_texts_speak_of_every_class_and_of_no_other(texts: dict[str, list[str]], message: str) -> None:
    with pytest.raises(FewShotError, match=message):
        ImageTextEncoder(Described(), letters).class_weights(["a", "b"], texts=texts)


def test_the_factor_of_cosines_is_the_models_own() -> None:
    scaled = Described(logit_scale=nn.Parameter(torch.tensor(2.0)))
    assert ImageTextEncoder(scaled, letters).logit_scale == pytest.approx(7.389, abs=1e-3)
    for name in ("temp", "temperature"):  # of BLIP, and of ALIGN
        tempered = Described(**{name: nn.Parameter(torch.tensor(0.05))})
        assert ImageTextEncoder(tempered, letters).logit_scale == pytest.approx(20.0)
    with pytest.raises(BackboneError, match=r"must have a `logit_scale`.*`encoder.logit_scale` of a recipe"):
        _ = ImageTextEncoder(Described(), letters).logit_scale

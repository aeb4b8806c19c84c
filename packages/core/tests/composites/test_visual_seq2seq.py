import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    ResNetConfig,
    T5Config,
)

from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.core.composites.encoder_layout import EncoderLayout
from weft.core.composites.visual_embedding import VisualEmbedding, pool_grid
from weft.core.errors import BackboneError
from weft.core.testing.backbones import T5_FIELDS, bart_config


def bart() -> BartConfig:
    return bart_config(vocab_size=60, init_std=0.1, forced_eos_token_id=None)


def t5() -> T5Config:
    return T5Config(**{**T5_FIELDS, "vocab_size": 60, "relative_attention_num_buckets": 8})


CONFIGS = {"bart": bart, "t5": t5}


def make(kind: str, **kwargs: object) -> VisualSeq2Seq:
    torch.manual_seed(0)
    settings = {"feature_size": 12, "num_visual_tokens": 9, **kwargs}
    model = VisualSeq2Seq(VisualSeq2SeqConfig(CONFIGS[kind](), **settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def batch(rows: int = 3, text: int = 5, images: int = 1, tokens: int = 9) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, text, dtype=torch.long)
    mask[0, -2:] = 0
    return {
        "input_ids": torch.randint(5, 40, (rows, text), generator=generator),
        "attention_mask": mask,
        "visual_features": torch.randn(rows, images, tokens, 12, generator=generator),
    }


def attend(
    layer: nn.Module, q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor, heads: int, scale: float
) -> torch.Tensor:
    """Softmax attention written out, for projections q_proj/k_proj/v_proj (BART) or q/k/v (T5)."""
    names = ("q_proj", "k_proj", "v_proj", "out_proj") if hasattr(layer, "q_proj") else ("q", "k", "v", "o")
    project = [getattr(layer, name) for name in names]
    split = lambda x: x.unflatten(-1, (heads, -1)).transpose(1, 2)  # noqa: E731
    scores = split(project[0](q)) @ split(project[1](k)).mT * scale + bias
    return project[3]((scores.softmax(-1) @ split(project[2](k))).transpose(1, 2).flatten(2))


def bart_encoder_by_hand(
    model: VisualSeq2Seq, ids: torch.Tensor, visual: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    encoder = model.language_model.get_encoder()
    positions = encoder.embed_positions.weight[2 : 2 + ids.shape[1]]
    text = encoder.layernorm_embedding(model.get_input_embeddings()(ids) + positions)
    x = torch.cat([text, visual], 1)
    bias = torch.zeros(mask.shape).masked_fill(mask == 0, -1e9)[:, None, None]
    for layer in encoder.layers:
        x = layer.self_attn_layer_norm(x + attend(layer.self_attn, x, x, bias, 2, 8**-0.5))
        x = layer.final_layer_norm(x + layer.fc2(functional.gelu(layer.fc1(x))))
    return x


def t5_encoder_by_hand(
    model: VisualSeq2Seq, ids: torch.Tensor, visual: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    encoder = model.language_model.get_encoder()
    x = torch.cat([model.get_input_embeddings()(ids), visual], 1)
    length = ids.shape[1]
    first = encoder.block[0].layer[0].SelfAttention
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    buckets = first._relative_position_bucket(
        distance,
        bidirectional=True,
        num_buckets=first.relative_attention_num_buckets,
        max_distance=first.relative_attention_max_distance,
    )
    bias = torch.zeros(1, 2, x.shape[1], x.shape[1])
    bias[0, :, :length, :length] = first.relative_attention_bias.weight[buckets].permute(2, 0, 1)
    bias = bias + torch.zeros(mask.shape).masked_fill(mask == 0, -1e9)[:, None, None]
    for block in encoder.block:
        attention, ffn = block.layer
        normed = attention.layer_norm(x)
        x = x + attend(attention.SelfAttention, normed, normed, bias, 2, 1.0)
        x = x + ffn.DenseReluDense(ffn.layer_norm(x))
    return encoder.final_layer_norm(x)


@pytest.mark.parametrize(("kind", "by_hand"), [("bart", bart_encoder_by_hand), ("t5", t5_encoder_by_hand)])
def test_encoder_equals_a_forward_written_from_the_weights(kind, by_hand):
    model, inputs = make(kind), batch()
    labels = torch.randint(5, 40, (3, 4))
    with torch.no_grad():
        got = model(**inputs, labels=labels).encoder_last_hidden_state
        visual = model.visual_embedding(inputs["visual_features"], model.get_input_embeddings())
        mask = torch.cat([inputs["attention_mask"], torch.ones(3, 9, dtype=torch.long)], 1)
        want = by_hand(model, inputs["input_ids"], visual, mask)
    seen = mask.bool()
    torch.testing.assert_close(got[seen], want[seen], atol=2e-6, rtol=1e-5)


def test_without_images_the_text_alone_is_read():
    model, inputs = make("bart"), batch()
    inputs.pop("visual_features")
    labels = torch.randint(5, 40, (3, 4))
    with torch.no_grad():
        torch.testing.assert_close(
            model(**inputs, labels=labels).logits, model.language_model(**inputs, labels=labels).logits
        )


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_generate_with_beams_equals_generate_from_the_encoder_output(kind):
    model, inputs = make(kind), batch()
    with torch.no_grad():
        got = model.generate(**inputs, num_beams=3, max_new_tokens=6, do_sample=False)
        embeds, mask = model.embed(**inputs)
        encoded = model.language_model.get_encoder()(inputs_embeds=embeds, attention_mask=mask)
        want = model.language_model.generate(
            encoder_outputs=encoded, attention_mask=mask, num_beams=3, max_new_tokens=6, do_sample=False
        )
    assert got.tolist() == want.tolist()


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_saved_model_loads_with_equal_logits_and_tied_head(kind, tmp_path):
    model, inputs = make(kind), batch()
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(loaded, VisualSeq2Seq)
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    labels = torch.randint(5, 40, (3, 4))
    with torch.no_grad():
        assert torch.equal(model(**inputs, labels=labels).logits, loaded(**inputs, labels=labels).logits)


def test_two_images_are_told_apart_by_their_order():
    model, inputs = make("bart"), batch(images=2)
    labels = torch.randint(5, 40, (3, 4))
    swapped = {**inputs, "visual_features": inputs["visual_features"].flip(1)}
    with torch.no_grad():
        first, second = model(**inputs, labels=labels).logits, model(**swapped, labels=labels).logits
        assert model.embed(**inputs)[0].shape == (3, 5 + 18, 16)
    assert (first - second).abs().max() > 1e-3


def test_object_order_takes_rows_from_the_end_of_the_token_table_without_parameters_of_its_own():
    embedding, table = VisualEmbedding(12, 16), nn.Embedding(60, 16)
    features = torch.zeros(1, 1, 4, 12)
    rows = embedding(features, table)[0]
    torch.testing.assert_close(rows[0] - rows[3], table.weight[59] - table.weight[56])
    assert not any(parameter is table.weight for parameter in embedding.parameters())


def test_more_images_than_the_model_was_made_for_are_refused():
    with pytest.raises(ValueError, match="3 images for one text"):
        VisualEmbedding(12, 16)(torch.zeros(1, 3, 4, 12), nn.Embedding(60, 16))


def test_pooling_seven_by_seven_to_six_by_six_is_max_pooling_of_kernel_two():
    features = torch.randn(2, 1, 49, 5)
    grid = features[:, 0].mT.unflatten(-1, (7, 7))
    want = functional.max_pool2d(grid, 2, 1).flatten(2).mT[:, None]
    assert torch.equal(pool_grid(features, 36), want)
    assert pool_grid(features, 49) is features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("wanted", [1, 4, 9, 36])
@pytest.mark.parametrize("tokens", [4, 25, 49, 196])
def test_any_grid_is_pooled_as_torch_pools_it(tokens, wanted, dtype):
    features = torch.randn(2, 3, tokens, 5).to(dtype)
    side, new = math.isqrt(tokens), math.isqrt(wanted)
    grid = features.reshape(6, side, side, 5).movedim(-1, 1)
    want = functional.adaptive_max_pool2d(grid, new).movedim(1, -1).reshape(2, 3, wanted, 5)
    assert torch.equal(pool_grid(features, wanted), want)


@pytest.mark.parametrize(("tokens", "wanted"), [(10, 9), (9, 8)])
def test_pooling_what_is_no_square_is_refused(tokens, wanted):
    with pytest.raises(ValueError, match="must be squares"):
        pool_grid(torch.zeros(1, tokens, 4), wanted)


TOWERS = {
    "resnet": (
        ResNetConfig(embedding_size=4, hidden_sizes=[4, 8, 12], depths=[1, 1, 1], layer_type="basic"),
        48,
    ),
    "clip": (
        CLIPVisionConfig(
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=24,
            patch_size=8,
        ),
        24,
    ),
}


@pytest.mark.parametrize("name", TOWERS)
def test_a_tower_inside_gives_the_same_as_its_features_from_outside(name):
    config, size = TOWERS[name]
    model = make("bart", vision_config=config)
    pixels = torch.randn(2, 1, 3, size, size)
    inputs = batch(rows=2)
    inputs.pop("visual_features")
    labels = torch.randint(5, 40, (2, 4))
    with torch.no_grad():
        features = model.encode_images(pixels)
        assert features.shape == (2, 1, 9, 12)
        inside = model(**inputs, pixel_values=pixels, labels=labels).logits
        outside = model(**inputs, visual_features=features, labels=labels).logits
    assert torch.equal(inside, outside)


def test_a_frozen_tower_records_no_gradients_and_a_trained_one_does():
    model = make("bart", vision_config=TOWERS["resnet"][0])
    model.vision_tower.requires_grad_(False)
    assert not model.encode_images(torch.randn(1, 1, 3, 48, 48)).requires_grad
    model.vision_tower.requires_grad_(True)
    assert model.encode_images(torch.randn(1, 1, 3, 48, 48)).requires_grad


def test_pixels_without_a_tower_are_refused():
    with pytest.raises(ValueError, match="needs a vision tower"):
        make("bart").encode_images(torch.zeros(1, 1, 3, 8, 8))


def test_a_language_model_without_a_rule_for_visual_rows_is_refused():
    config = BertConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
    )
    with pytest.raises(BackboneError, match="BartForConditionalGeneration or T5"):
        EncoderLayout(BertModel(config))


def test_an_unknown_nested_config_is_refused():
    with pytest.raises(ValueError, match="must be one that transformers knows"):
        VisualSeq2SeqConfig({"model_type": "nonsense"})


def test_a_deep_copy_keeps_a_layout_of_its_own():
    model = make("bart")
    other = copy.deepcopy(model)
    labels = torch.randint(5, 40, (3, 4))
    with torch.no_grad():
        want = other(**batch(), labels=labels).logits
        model(**batch(text=9), labels=labels)
        assert torch.equal(other(**batch(), labels=labels).logits, want)


@pytest.mark.parametrize("kind", ["bart", "t5"])
def test_every_parameter_and_the_features_receive_gradient(kind):
    model, inputs = make(kind), batch(images=2)
    inputs["visual_features"].requires_grad_(True)
    model(**inputs, labels=torch.randint(5, 40, (3, 4))).loss.backward()
    assert inputs["visual_features"].grad.abs().sum() > 0
    silent = [name for name, p in model.named_parameters() if p.grad is None]
    assert silent == []

import pytest
import torch
from torch.nn import functional
from transformers import (
    AutoModel,
    BartConfig,
    BertConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ResNetConfig,
    T5Config,
)

from weft.core import attach, load_adapter, plan
from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.errors import ConfigError

SMALL = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {
    "clip": lambda: CLIPTextConfig(
        vocab_size=40, max_position_embeddings=16, bos_token_id=0, eos_token_id=2, **SMALL
    ),
    "bert": lambda: BertConfig(vocab_size=40, max_position_embeddings=16, **SMALL),
    "t5": lambda: T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2),
    "bart": lambda: BartConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=16,
    ),
}
VISION = {
    "clip": lambda: CLIPVisionConfig(image_size=12, patch_size=4, initializer_range=0.02, **SMALL),
    "resnet": lambda: ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"),
    "convnext": lambda: ConvNextConfig(
        num_stages=2, hidden_sizes=[4, 8], depths=[1, 1], image_size=12, patch_size=2
    ),
}


def make(text: str = "clip", vision: str = "clip", **settings: object) -> DualEncoder:
    torch.manual_seed(0)
    config = DualEncoderConfig(TEXT[text](), VISION[vision](), projection_size=8, **settings)
    return DualEncoder(config).eval()


def batch(rows: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(rows, 6, dtype=torch.long)
    mask[0, 4:] = 0
    return {
        "input_ids": torch.randint(3, 40, (rows, 6), generator=generator),
        "attention_mask": mask,
        "pixel_values": torch.randn(rows, 1, 3, 12, 12, generator=generator),
    }


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("text", TEXT)
def test_any_text_encoder_meets_any_vision_tower(text, vision):
    output = make(text, vision)(**batch())
    assert output.text_embeds.shape == output.image_embeds.shape == (3, 8)
    assert torch.allclose(output.text_embeds.norm(dim=-1), torch.ones(3))
    assert torch.allclose(output.image_embeds.norm(dim=-1), torch.ones(3))


def test_text_features_are_the_projected_mean_of_unmasked_tokens():
    model, inputs = make("bert"), batch()
    hidden = model.text_model(inputs["input_ids"], inputs["attention_mask"]).last_hidden_state
    by_hand = functional.normalize(model.text_projection(hidden[0, :4].mean(0)), dim=-1)
    assert torch.allclose(
        model.encode_text(inputs["input_ids"], inputs["attention_mask"])[0], by_hand, atol=1e-6
    )


def test_padding_does_not_change_a_text():
    model = make("bert")
    ids = torch.tensor([[5, 6, 7]])
    padded = model.encode_text(torch.tensor([[5, 6, 7, 1, 1]]), torch.tensor([[1, 1, 1, 0, 0]]))
    assert torch.allclose(model.encode_text(ids), padded, atol=1e-6)


def test_the_pooler_is_taken_where_it_is_asked_for():
    model, inputs = make("bert", text_pooling="pooler"), batch()
    pooled = model.text_model(inputs["input_ids"], inputs["attention_mask"]).pooler_output
    by_hand = functional.normalize(model.text_projection(pooled), dim=-1)
    assert torch.allclose(
        model.encode_text(inputs["input_ids"], inputs["attention_mask"]), by_hand, atol=1e-6
    )


def test_a_pooler_that_is_not_there_is_an_error():
    with pytest.raises(ConfigError, match="`text_pooling` may be 'pooler' only"):
        make("t5", text_pooling="pooler").encode_text(torch.tensor([[5, 6]]))


def test_a_class_token_is_left_out():
    model, inputs = make(), batch()
    tokens = model.vision_tower(pixel_values=inputs["pixel_values"][:, 0]).last_hidden_state
    assert tokens.shape[1] == 10
    assert torch.equal(model.encode_images(inputs["pixel_values"])[:, 0], tokens[:, 1:])


def test_kept_features_give_what_pixels_give_and_frames_are_averaged():
    model, inputs = make(), batch()
    direct = model.encode_image(inputs["pixel_values"])
    kept = model.encode_image(visual_features=model.encode_images(inputs["pixel_values"]))
    twice = model.encode_image(inputs["pixel_values"].repeat(1, 2, 1, 1, 1))
    single = model.encode_image(inputs["pixel_values"][:, 0])
    for other in (kept, twice, single):
        assert torch.allclose(direct, other, atol=1e-6)


@pytest.mark.parametrize("given", [{}, {"pixel_values": 1, "visual_features": 1}], ids=["none", "both"])
def test_an_image_comes_as_pixels_or_as_features(given):
    values = {name: torch.zeros(1, 1, 3, 12, 12) for name in given}
    with pytest.raises(ValueError, match="exactly one of `pixel_values` and `visual_features`"):
        make().encode_image(**values)


def test_one_side_alone_and_a_bounded_scale():
    model, inputs = make(initial_temperature=0.05), batch()
    output = model(input_ids=inputs["input_ids"])
    assert output.image_embeds is None
    assert output.logit_scale.item() == pytest.approx(20.0)
    with torch.no_grad():
        model.logit_scale.fill_(9.0)
    assert model(pixel_values=inputs["pixel_values"]).logit_scale.item() == pytest.approx(100.0)


@pytest.mark.parametrize("text", ["clip", "bart"])
def test_it_survives_saving_under_the_auto_classes(tmp_path, text):
    model, inputs = make(text, "resnet", initial_temperature=0.1), batch()
    model.save_pretrained(tmp_path)
    again = AutoModel.from_pretrained(tmp_path).eval()
    assert isinstance(again, DualEncoder)
    assert again.config.initial_temperature == 0.1
    assert torch.equal(model(**inputs).text_embeds, again(**inputs).text_embeds)
    assert torch.equal(model(**inputs).image_embeds, again(**inputs).image_embeds)


def test_the_token_table_can_be_replaced():
    model = make()
    table = torch.nn.Embedding(44, 16)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table


def test_an_unknown_nested_type_is_an_error():
    with pytest.raises(ConfigError, match="`model_type` of a nested config"):
        DualEncoderConfig(text_config={"model_type": "clap_trap"})


@pytest.mark.parametrize("text", ["clip", "t5"])
def test_adapters_stand_at_the_sites_of_the_text_model(text):
    model = make(text, "resnet")
    method = {
        "method": "bottleneck",
        "init": "bert",
        "bottleneck_size": 4,
        "train_full": ["projector", "logit_scale"],
    }
    planned = plan(model, method, ["de", "fr"])
    assert {site.tower for site in planned.sites} == {"text"}
    assert planned.components["projector"] == 2 * 8 * 8 + 8 * 8
    assert planned.components["logit_scale"] == 1


def test_both_towers_take_adapters_and_each_language_its_own(tmp_path):
    inputs = batch()
    plain = make().encode_text(inputs["input_ids"])
    method = {"method": "bottleneck", "bottleneck_size": 4, "init": "bert", "sharing": "multiple"}
    model = attach(make(), method, ["de", "fr"])
    assert {site.tower for site in model.weft.plan.sites} == {"text", "vision"}
    with model.route(tasks=["de", "fr", None]):
        mixed = model(**inputs).text_embeds
    with model.route(task="de"):
        german = model.encode_text(inputs["input_ids"], inputs["attention_mask"])
    with model.route(task="fr"):
        french = model.encode_text(inputs["input_ids"], inputs["attention_mask"])
    assert torch.allclose(mixed[0], german[0], atol=1e-6)
    assert torch.allclose(mixed[1], french[1], atol=1e-6)
    assert torch.allclose(mixed[2], plain[2], atol=1e-6)
    assert not torch.allclose(german, french)
    model.save_pretrained(tmp_path)
    again = load_adapter(make(), tmp_path)
    with again.route(task="fr"):
        assert torch.equal(again.encode_text(inputs["input_ids"], inputs["attention_mask"]), french)


def test_an_adapter_in_the_vision_tower_gets_a_gradient_though_the_tower_is_frozen():
    model = attach(
        make(), {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "towers": ["vision"]}
    )
    model(**batch()).image_embeds.sum().backward()
    assert not any(value.requires_grad for value in model.vision_tower.parameters())
    assert all(value.grad is not None for value in model.weft.parameters())


def test_full_training_reaches_every_parameter():
    model = attach(make("clip", "resnet"), {"method": "full"})
    assert all(value.requires_grad for value in model.parameters())


def test_statistics_of_norms_trained_in_full_are_saved_with_them(tmp_path):
    model, inputs = attach(make("clip", "resnet"), {"method": "full"}), batch()
    model.train()
    for _ in range(3):
        model(**inputs)
    model.eval()
    model.save_pretrained(tmp_path)
    again = load_adapter(make("clip", "resnet"), tmp_path).eval()
    assert torch.equal(model(**inputs).image_embeds, again(**inputs).image_embeds)
    assert not torch.equal(model(**inputs).image_embeds, make("clip", "resnet")(**inputs).image_embeds)

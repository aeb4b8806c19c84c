"""Families: addresses resolve to modules, and a miss is an error with near names."""

import pytest

from weft.core import Family, register_family
from weft.core.backbone.family import BlockSpec, Stack, families
from weft.core.backbone.resolving import resolve
from weft.core.errors import AddressError, BackboneError
from weft.core.testing import BACKBONES, tiny_backbone

ADDRESSES = [
    ("bart", "text.encoder.1.ffn", "model.encoder.layers.1.fc2"),
    ("bart", "text.decoder.0.cross_attention", "model.decoder.layers.0.encoder_attn.out_proj"),
    ("bart", "text.decoder.0.attention.query", "model.decoder.layers.0.self_attn.q_proj"),
    ("t5", "text.encoder.1.ffn", "encoder.block.1.layer.1.DenseReluDense"),
    ("t5", "text.decoder.1.ffn", "decoder.block.1.layer.2.DenseReluDense"),
    ("t5", "text.decoder.0.cross_attention", "decoder.block.0.layer.1.EncDecAttention.o"),
    ("t5", "text.decoder.0.ffn.down", "decoder.block.0.layer.2.DenseReluDense.wo"),
    ("clip", "vision.1.attention", "vision_model.encoder.layers.1.self_attn.out_proj"),
    ("clip", "text.0.ffn", "text_model.encoder.layers.0.mlp"),
    ("visual_seq2seq", "text.encoder.0.ffn", "language_model.model.encoder.layers.0.fc2"),
    ("visual_seq2seq", "text.encoder.embedding", "encoder_prompt"),
]


@pytest.mark.parametrize(("backbone", "address", "path"), ADDRESSES)
def test_addresses_resolve(backbone, address, path):
    model, _ = tiny_backbone(backbone)
    assert resolve(model)[address].path == path


@pytest.mark.parametrize("backbone", sorted(BACKBONES))
def test_every_site_is_there_once_with_its_widths(backbone):
    model, _ = tiny_backbone(backbone)
    sites = resolve(model)
    addresses = [site.address for site in sites.sites]
    assert len(addresses) == len(set(addresses))
    for site in sites.sites:
        module = model.get_submodule(site.path)
        if site.role:
            assert (site.in_width, site.out_width) == (module.in_features, module.out_features)
        if site.wiring.source is not None:
            model.get_submodule(site.wiring.source)


def test_an_unknown_address_names_the_nearest():
    model, _ = tiny_backbone("bart")
    with pytest.raises(AddressError, match=r"cross_atention'. Did you mean 'text.decoder.1.cross_attention'"):
        resolve(model)["text.decoder.1.cross_atention"]


def test_a_renamed_module_is_told():
    model, _ = tiny_backbone("bart")
    layer = model.model.encoder.layers[0]
    layer.second = layer.fc2
    del layer.fc2
    with pytest.raises(BackboneError, match=r"family 'bart' expects fc2 in `model.encoder.layers.0`"):
        resolve(model)


def test_a_missing_tower_is_told():
    model, _ = tiny_backbone("clip")
    model.picture_model = model.vision_model
    del model.vision_model
    with pytest.raises(BackboneError, match=r"family 'clip' expects a tower 'vision'"):
        resolve(model)


def test_a_width_must_be_readable():
    family = Family(
        name="odd",
        model_types={"odd": ("text",)},
        stacks=(Stack("text", "layers", {"ffn": BlockSpec(output="act")}),),
        towers={"text": ""},
    )
    from torch import nn

    model = nn.Module()
    model.config = type("Config", (), {"model_type": "odd"})()
    model.layers = nn.ModuleList([nn.Sequential()])
    model.layers[0].act = nn.Sequential(nn.GELU())
    try:
        register_family(family)
        with pytest.raises(BackboneError, match=r"the width of a site must be readable from its module"):
            resolve(model)
        with pytest.raises(BackboneError, match=r"`model_types` must be new, but 'odd' is taken by 'odd'"):
            register_family(Family(name="other", model_types={"odd": ("text",)}))
    finally:
        families().forget("odd")


def test_families_are_listed_alphabetically():
    assert list(families()) == sorted(families())


def test_gated_t5_has_all_its_maps():
    import transformers

    model = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            vocab_size=20,
            d_model=8,
            d_kv=4,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",
        )
    )
    sites = resolve(model)
    assert sites["text.encoder.0.ffn.gate"].path.endswith("wi_0")
    assert sites["text.encoder.0.ffn.up"].path.endswith("wi_1")

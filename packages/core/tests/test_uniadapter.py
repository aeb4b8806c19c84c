"""UniAdapter: its published counts, the outputs of its authors' module, and where it acts in BLIP, CLIP and LLaVA.

`data/uniadapter.safetensors` was made once by running the authors' adapter on random weights in float32 on a CPU; `y`
is the delta, `dx` the gradient of the sum of its squares.
"""

from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional

from weft.core import attach, load_adapter, plan
from weft.core.adapted.bank import Bank, Store
from weft.core.adapted.module import SiteUnit
from weft.core.backbone.sites import Site
from weft.core.backbone.wiring import Wiring
from weft.core.errors import ConfigError
from weft.core.sharing import SHARED
from weft.core.testing.backbones import tiny_backbone
from weft.core.testing.unit_contract import checkpoint_activations, move_slots
from weft.core.testing.vision_language import CASES
from weft.core.units.uniadapter import UniAdapterConfig

GOLDEN = load_file(Path(__file__).parent / "data" / "uniadapter.safetensors")
ORIGINAL = {
    "text.up": "up_proj",
    "vision.up": "visual_up_proj",
    "cross.up": "multi_up_proj",
    "norm": "adapter_layer_norm_before",
    "cross_norm": "adapter_layer_norm_cross_modal",
}
OTHERS, ALL = ["task", "stack"], ["task", "modality", "stack"]
BLIP = ("blip_retrieval", "blip_vqa", "blip_caption")


def unit_at(modality, size, values, **options):
    """The unit at a site, its tensors set by `values(name as the unit reads it)`."""
    site = Site(modality, "", 0, "ffn", Wiring("module"), size, size, modality=modality)
    config = UniAdapterConfig(bottleneck_size=values("down.weight").shape[1], **options)
    store = Store(("default",), None)
    banks = {}
    for spec in config.tensors(site, None):
        banks[spec.alias] = Bank((SHARED,), spec.shape, torch.float32, torch.device("cpu"), True)
        name = spec.alias if spec.part == "up" else spec.name
        with torch.no_grad():
            banks[spec.alias]._parameters[SHARED].copy_(values(name))
    return SiteUnit(store, site, config.build(site), banks, torch.nn.Identity())


def delta(unit, x, mode):
    taps = {"query": torch.zeros_like(x)} if mode == "cross" else {}
    zero = torch.zeros_like(x)
    return unit.unit.beside(zero, x, unit.weights(x, taps))


def original(name):
    part, _, kind = name.rpartition(".")
    value = GOLDEN[f"param/{ORIGINAL.get(part, 'down_proj')}.{kind}"]
    return value.T if value.dim() == 2 else value


@pytest.mark.parametrize(
    ("mode", "theirs"), [("text", "text"), ("vision", "visual"), ("cross", "multimodal")]
)
def test_the_authors_module_gives_the_same_outputs_and_gradients(mode, theirs):
    options = {"cross_norm": "trained", "query_residual": False}
    unit = unit_at("vision" if mode == "vision" else "text", 32, original, **options)
    x = GOLDEN["x"].clone().requires_grad_()
    y = delta(unit, x, mode)
    y.square().sum().backward()
    torch.testing.assert_close(y, GOLDEN[f"y/{theirs}"], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(x.grad, GOLDEN[f"dx/{theirs}"], atol=1e-6, rtol=1e-5)


WORKED = {
    "down.weight": [[0.5, -0.25, 0, 1], [-1, 0.5, 0.25, 0]],
    "down.bias": [0.1, 0.2],
    "text.up.weight": [[1, 0], [0, 1], [1, 1], [-1, 0.5]],
    "vision.up.weight": [[0.2, 0.1], [0.3, -0.1], [0, 0.4], [0.5, 0.5]],
    "vision.up.bias": [0.01, 0.02, 0.03, 0.04],
    "cross.up.weight": [[-1, 2], [0.5, 0.5], [0, 0], [1, -1]],
    "norm.weight": [1, 1, 1, 1],
    "cross_norm.weight": [1, 1, 1, 1],
}


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("text", [0.088262, 0.142983, 0.231245, -0.016770]),
        ("vision", [0.032951, 0.014180, 0.060193, 0.119623]),
        ("cross", [0.076182, 0.057213, 0.038244, -0.171640]),
    ],
)
def test_a_worked_example_in_four_features(mode, expected):
    def values(name):
        value = torch.tensor(WORKED.get(name, [0.0] * 4), dtype=torch.float32)
        return value.T if value.dim() == 2 else value

    options = {"cross_norm": "trained", "query_residual": False}
    unit = unit_at("vision" if mode == "vision" else "text", 4, values, **options)
    y = delta(unit, torch.tensor([[[1.0, 2.0, 3.0, 4.0]]]), mode)
    torch.testing.assert_close(y[0, 0], torch.tensor(expected), atol=1e-6, rtol=0)


def blip_base(name, size=384):
    text = {"num_attention_heads": 12}
    with torch.device("meta"):
        config = transformers.BlipConfig(text_config=text, vision_config={"image_size": size})
        return getattr(transformers, name)(config)


@pytest.fixture(scope="module")
def retrieval():
    return blip_base("BlipForImageTextRetrieval")


def uniadapter(**options):
    return {"method": "uniadapter", **options}


@pytest.mark.parametrize("size", [1, 64, 128, 512])
def test_counts_of_adapters_heads_and_branch(retrieval, size):
    adapters = 36_876 * size + 64_512
    trained = plan(retrieval, uniadapter(bottleneck_size=size, cross_norm="trained"))
    assert trained.trainable_parameters == adapters
    frozen = plan(retrieval, uniadapter(bottleneck_size=size, cross_norm="frozen", init="repo"))
    assert frozen.trainable_parameters == adapters - 18_432
    assert frozen.total_parameters == 223_744_258 + adapters
    method = uniadapter(bottleneck_size=size, cross_norm="trained", train_full=["projector", "head"])
    everything = plan(retrieval, [method, {"method": "key_value_branch"}])
    assert everything.trainable_parameters == adapters + 395_266 + 198_274


@pytest.mark.parametrize(
    ("sharing", "expected"),
    [
        ({"down": OTHERS, "up": OTHERS}, 7_110_144),
        ({}, 4_747_776),
        ("unified", 4_747_776),
        ({"down": OTHERS, "up": ALL}, 4_732_416),
        ({"down": ALL, "up": ALL}, 2_370_048),
    ],
    ids=["none", "down", "preset", "up", "all"],
)
def test_counts_of_the_sharing_schemes(retrieval, sharing, expected):
    planned = plan(retrieval, uniadapter(norm=False, sharing=sharing))
    assert planned.trainable_parameters == expected


@pytest.mark.parametrize("size", [224, 384, 480])
@pytest.mark.parametrize(
    ("name", "at_224"),
    [
        ("BlipForImageTextRetrieval", 223_452_418),
        ("BlipForQuestionAnswering", 360_938_300),
        ("BlipForConditionalGeneration", 223_679_804),
    ],
)
def test_counts_of_the_backbones(name, at_224, size):
    planned = plan(blip_base(name, size), uniadapter())
    positions = 768 * ((size // 16) ** 2 - 14**2)
    assert planned.backbone_parameters == at_224 + positions
    # The adapters of the question encoder serve the decoder too.
    assert planned.trainable_parameters == 36_876 * 128 + 64_512 - 18_432


def tiny(name):
    torch.manual_seed(0)
    model, batch = CASES[name]()
    return model.eval().requires_grad_(False), batch


def tensors(output):
    return [
        value for value in output.values() if isinstance(value, torch.Tensor) and value.is_floating_point()
    ]


def shaken(model, std=0.3):
    torch.manual_seed(1)
    move_slots(model, std)
    return model


@pytest.mark.parametrize("name", BLIP)
@pytest.mark.parametrize("cross_norm", ["none", "trained"])
def test_at_the_start_and_at_scale_zero_blip_is_itself(name, cross_norm):
    model, batch = tiny(name)
    modes = [batch] if name != "blip_retrieval" else [batch, {**batch, "use_itm_head": False}]
    with torch.no_grad():
        expected = [value for mode in modes for value in tensors(model(**mode))]
        attach(model, uniadapter(bottleneck_size=4, cross_norm=cross_norm))
        found = [value for mode in modes for value in tensors(model(**mode))]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    other, _ = tiny(name)
    shaken(attach(other, uniadapter(bottleneck_size=4, scale=0.0, init="repo")))
    with torch.no_grad():
        found = [value for mode in modes for value in tensors(other(**mode))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_layers_of_both_towers_and_of_the_decoder_use_one_down_projection():
    model, _ = tiny("blip_vqa")
    attach(model, uniadapter(bottleneck_size=4))
    units = {unit.site.address: unit for unit in model.weft.plan.units}
    banks = {address: unit.banks for address, unit in units.items()}
    text, vision, decoder = banks["text.encoder.1.ffn"], banks["vision.1.ffn"], banks["text.decoder.1.ffn"]
    assert text["text.down.weight"] == text["cross.down.weight"] == vision["vision.down.weight"]
    assert text == decoder
    assert len({text["text.up.weight"], text["cross.up.weight"], vision["vision.up.weight"]}) == 3
    assert banks["text.encoder.0.ffn"]["text.down.weight"] != text["text.down.weight"]
    pointers = {value.data_ptr() for _, _, value in model.weft.slots()}
    assert len(pointers) == len(list(model.weft.slots())) == 2 * (2 + 6 + 2)
    apart = plan(tiny("blip_vqa")[0], uniadapter(bottleneck_size=4, decoder="separate"))
    assert not set({u.site.address: u for u in apart.units}["text.decoder.1.ffn"].banks.values()) & set(
        {u.site.address: u for u in apart.units}["text.encoder.1.ffn"].banks.values()
    )


def branch(model, layer, name, x, also=None):
    """The formula of one branch, in plain torch."""
    folder = model.weft.uniadapter
    shared = getattr(folder.shared, str(layer)).ffn
    own = getattr(getattr(folder, name), str(layer)).ffn.up
    up, bias = own.weight.stacked()[0], own.bias.stacked()[0]
    if also is not None:
        other = getattr(getattr(folder, also), str(layer)).ffn.up
        up, bias = up + other.weight.stacked()[0], bias + other.bias.stacked()[0]
    x = functional.layer_norm(x, x.shape[-1:], shared.norm.weight.stacked()[0], shared.norm.bias.stacked()[0])
    hidden = torch.relu(x @ shared.down.weight.stacked()[0] + shared.down.bias.stacked()[0])
    return 0.1 * (hidden @ up + bias)


@torch.no_grad()
def test_a_vision_layer_reads_the_stream_before_its_norm():
    model, _ = tiny("blip_retrieval")
    layer = model.vision_model.encoder.layers[1]
    x = torch.randn(2, 5, 16)
    plain = layer(x)
    stream = x + layer.self_attn(hidden_states=layer.layer_norm1(x))[0]
    shaken(attach(model, uniadapter(bottleneck_size=4)))
    torch.testing.assert_close(layer(x), plain + branch(model, 1, "vision", stream), atol=1e-6, rtol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("residual", [True, False])
def test_a_text_layer_adds_the_query_residual_and_the_cross_branch_behind_its_last_norm(residual):
    model, _ = tiny("blip_retrieval")
    layer = model.text_encoder.encoder.layer[0]
    x, image = torch.randn(2, 7, 16), torch.randn(2, 5, 16)
    alone, together = layer(x), layer(x, image)
    query = layer.attention(x)[0]
    crossed = layer.crossattention(query, encoder_hidden_states=image)[0]
    shaken(attach(model, uniadapter(bottleneck_size=4, query_residual=residual)))
    torch.testing.assert_close(layer(x), alone + branch(model, 0, "text", query), atol=1e-6, rtol=1e-6)
    expected = together + branch(model, 0, "cross", crossed, also="text")
    expected = expected + branch(model, 0, "text", query) if residual else expected
    torch.testing.assert_close(layer(x, image), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", BLIP)
def test_only_the_listed_names_learn_and_the_rest_stays_bit_for_bit(name, tmp_path):
    model, batch = tiny(name)
    words = ["projector", "head"] if name == "blip_retrieval" else []
    attach(model, uniadapter(bottleneck_size=4, train_full=words))
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    modes = [batch] if name != "blip_retrieval" else [batch, {**batch, "use_itm_head": False}]
    for _ in range(3):
        optimizer.zero_grad()
        sum(value.square().sum() for mode in modes for value in tensors(model(**mode))[:1]).backward()
        optimizer.step()
    changed = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in model.named_parameters() if value.requires_grad}
    listed = ("weft.uniadapter.", "vision_proj.", "text_proj.", "itm_head.")
    assert all(name.startswith(listed) for name in changed)
    model.save_pretrained(tmp_path)
    other, _ = tiny(name)
    load_adapter(other, tmp_path)
    with torch.no_grad():
        for mode in modes:
            pairs = zip(tensors(other(**mode)), tensors(model(**mode)), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


def test_gradient_checkpointing_recomputes_the_taps():
    gradients = []
    for checkpointing in (False, True):
        model, batch = tiny("blip_vqa")
        shaken(attach(model, uniadapter(bottleneck_size=4)), std=0.1).train()
        if checkpointing:
            checkpoint_activations(model)
            # BLIP adds positions to its embeddings in place, which autograd forbids on inputs with gradients.
            model.disable_input_require_grads()
        model(**batch).loss.backward()
        gradients.append({key: value.grad for key, _, value in model.weft.slots()})
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, atol=1e-7, rtol=1e-5)


@torch.no_grad()
def test_generation_with_a_cache_is_generation_without_one():
    model, batch = tiny("blip_caption")
    shaken(attach(model, uniadapter(bottleneck_size=4)), std=1.0)
    inputs = {"pixel_values": batch["pixel_values"], "max_new_tokens": 6}
    cached, plain = (model.generate(**inputs, use_cache=use) for use in (True, False))
    assert torch.equal(cached, plain)
    with model.disable_adapter():
        assert not torch.equal(model.generate(**inputs), cached)


def test_towers_of_unequal_width_share_a_core():
    with torch.device("meta"):
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config={"patch_size": 16}))
    options = {"branches": ["text", "vision"], "norm": False}
    with pytest.raises(ConfigError, match="must join equal shapes, but shares `down` across"):
        plan(model, uniadapter(**options))
    apart = plan(model, uniadapter(**options, sharing={"down": OTHERS, "up": OTHERS}))
    assert (apart.trainable_parameters, apart.backbone_parameters) == (3_950_592, 149_620_737)
    cored = plan(model, uniadapter(**options, core=True))
    assert cored.trainable_parameters == 3_950_592 + 12 * (128 * 128 + 128)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            "`branches` may hold 'cross' only where text layers have cross-attention, but text.0.ffn has none",
        ),
        ({"branches": []}, r"`branches` must name modalities, each once, but is \[\]"),
        (
            {"init": "identity", "cross_norm": "frozen"},
            "`cross_norm` must be 'none' or 'trained' where `init`",
        ),
        ({"per_token": True}, "`branches` must not hold 'cross' where `per_token` is true"),
    ],
    ids=["no cross-attention", "no branch", "dead branch", "cross by token"],
)
def test_options_that_do_not_fit(options, message):
    model, _ = tiny_backbone("clip")
    with pytest.raises(ConfigError, match=message):
        plan(model, uniadapter(**options))


def test_a_blip_text_encoder_without_cross_attention_is_refused():
    config = CASES["blip_retrieval"]()[0].config
    config.text_config.is_decoder = False
    model = transformers.BlipForImageTextRetrieval(config)
    with pytest.raises(ConfigError, match="a BLIP text encoder needs `is_decoder: true` in its config"):
        plan(model, uniadapter())


def test_a_family_that_does_not_name_its_stream_is_refused():
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match=r"must have the residual stream .* none at text\.encoder\.0\.ffn"):
        plan(model, uniadapter(branches=["text"]))

import pytest
import torch
import transformers
from torch.nn import functional

from weft.core import attach, detach, load_adapter, merge, plan
from weft.core.backbone.resolving import resolve
from weft.core.composites import DualEncoder, DualEncoderConfig, load_efficientnet_lite
from weft.core.composites.efficientnet_lite import _config, _odd_maps
from weft.core.composites.text_projection import CentredProjection, KernelProjection
from weft.core.errors import AddressError, BackboneError, CheckpointError, ConfigError
from weft.core.testing.original_names import original_lite, tiny_efficientnet

LORA = {"method": "lora", "rank": 2, "linears": ["up", "down"]}
BOTTLENECK = {"method": "bottleneck", "bottleneck_size": 4, "init": "zero"}
METHODS = {"lora": LORA, "bottleneck": BOTTLENECK, "ia3": {"method": "ia3", "linears": ["up", "down"]}}


def small():
    torch.manual_seed(0)
    return tiny_efficientnet().eval()


def pixels(rows=3):
    return {"pixel_values": torch.randn(rows, 3, 32, 48, generator=torch.Generator().manual_seed(1))}


def feature_map(model):
    with torch.no_grad():
        return model(**pixels()).last_hidden_state


def shake(model):
    for _, _, value in model.weft.slots():
        value.data = value + 0.1 * torch.randn(value.shape)


def test_a_site_holds_the_whole_of_what_its_block_adds():
    """With its output zeroed, a block with a stream returns what it read, and one without returns nothing."""
    model, seen = small(), {}
    sites = [site for site in resolve(model).sites if not site.role]
    for site in sites:
        block = model.encoder.blocks[site.layer]
        model.get_submodule(site.path).register_forward_hook(lambda module, args, output: 0 * output)
        block.register_forward_hook(
            lambda module, args, out, at=site.layer: seen.update({at: (args[0], out)})
        )
    feature_map(model)
    for site in sites:
        read, returned = seen[site.layer]
        expected = read if site.wiring.residual.before else torch.zeros_like(returned)
        assert torch.equal(returned, expected)


def test_blocks_that_change_the_map_have_no_stream():
    sites = {site.layer: site for site in resolve(small()).sites if not site.role}
    assert [site.layer for site in sites.values() if site.wiring.residual.before] == [1, 3]
    assert (sites[2].in_width, sites[2].out_width) == (8, 16)


@pytest.mark.parametrize("name", METHODS)
def test_units_start_as_the_backbone_and_every_slot_gets_a_gradient(name):
    model = small()
    expected = feature_map(model)
    attach(model, METHODS[name])
    assert torch.equal(feature_map(model), expected)
    model(**pixels()).last_hidden_state.square().sum().backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())
    detach(model)
    assert torch.equal(feature_map(model), expected)


def test_a_bottleneck_works_on_the_channels_of_every_place():
    model = attach(small(), {**BOTTLENECK, "layers": [3], "activation": "relu"})
    shake(model)
    seen = {}
    module = model.encoder.blocks[3].projection.project_bn
    plain = type(module)._weft_base.forward
    module.register_forward_hook(lambda module, args, output: seen.update(read=args[0], output=output))
    feature_map(model)
    own = plain(module, seen["read"])
    slots = {key.rpartition("/")[2].split(".", 4)[-1]: value for key, _, value in model.weft.slots()}
    down, down_bias, up, up_bias = slots.values()
    rows = own.permute(0, 2, 3, 1)
    by_hand = rows + functional.relu(rows @ down + down_bias) @ up + up_bias
    assert torch.allclose(seen["output"], by_hand.permute(0, 3, 1, 2), atol=1e-5)


def test_rows_of_a_mixed_batch_get_what_their_tasks_give_alone():
    model = attach(small(), BOTTLENECK, ["one", "other"])
    shake(model)
    with torch.no_grad(), model.route(tasks=["one", "other", "one"]):
        mixed = model(**pixels()).last_hidden_state
    for rows, task in (([0, 2], "one"), ([1], "other")):
        with torch.no_grad(), model.route(task=task):
            alone = model(**pixels()).last_hidden_state
        assert torch.allclose(mixed[rows], alone[rows], atol=1e-5)


@pytest.mark.parametrize(
    "method", [LORA, {**LORA, "magnitude": True}, METHODS["ia3"]], ids=["lora", "dora", "ia3"]
)
def test_a_convolution_takes_in_what_is_merged(method):
    model = attach(small(), method)
    shake(model)
    adapted = feature_map(model)
    assert merge(model).error < 1e-5
    assert torch.allclose(feature_map(model), adapted, atol=1e-4)


def test_an_adapter_comes_back_from_its_files(tmp_path):
    model = attach(small(), LORA)
    shake(model)
    model.save_pretrained(tmp_path)
    assert torch.equal(feature_map(load_adapter(small(), tmp_path).eval()), feature_map(model.eval()))


@pytest.mark.parametrize(
    ("method", "error", "message"),
    [
        (
            {"method": "adaptformer"},
            ConfigError,
            r"must have the residual stream before the sub-layer.*vision.0.ffn",
        ),
        (
            {**BOTTLENECK, "placement": "parallel"},
            ConfigError,
            r"`layers` must .*vision.1.ffn takes|vision.0.ffn takes",
        ),
        ({"method": "lora"}, AddressError, "Choose one of down, up"),
        (
            {"method": "bottleneck", "blocks": ["attention"], "bottleneck_size": 4},
            AddressError,
            "Choose one of ffn",
        ),
        ({**BOTTLENECK, "sharing": {"down": ["layer"]}}, ConfigError, "`sharing` must join equal shapes"),
    ],
    ids=["no stream", "other width", "no queries", "no attention", "unequal widths"],
)
def test_what_cannot_act_is_refused(method, error, message):
    with pytest.raises(error, match=message):
        plan(small(), method)


def test_units_on_the_stream_take_the_blocks_that_keep_it():
    assert len(plan(small(), {"method": "adaptformer", "layers": [1, 3], "bottleneck_size": 2}).sites) == 2


def test_a_convolution_over_places_is_no_linear_map(monkeypatch):
    model = small()
    model.encoder.blocks[1].projection.project_conv = torch.nn.Conv2d(8, 8, 3, padding=1)
    with pytest.raises(BackboneError, match="a convolution that a family names must be 1×1"):
        resolve(model)


def original(size=0):
    """Tensors of an EfficientNet-Lite by their original names, drawn."""
    names = {
        f"_blocks.{first}._project_conv.weight": width
        for first, width in zip((0, 1, 3, 5, 8, 11, 15), (16, 24, 40, 80, 112, 192, 320), strict=True)
    }
    new = {
        f"encoder.blocks.{name.split('.')[1]}.projection.project_conv.weight": torch.zeros(width)
        for name, width in names.items()
    }
    model = transformers.EfficientNetModel(_config(new, size))
    return original_lite(model, 10)


def test_every_tensor_of_the_original_finds_its_place_and_gates_are_the_identity():
    state = original()
    model, classifier = load_efficientnet_lite(state, 0)
    assert torch.equal(classifier, state["_fc.weight"])
    assert torch.equal(
        model.encoder.blocks[7].depthwise_conv.depthwise_conv.weight,
        state["_blocks.7._depthwise_conv.weight"],
    )
    gate = model.encoder.blocks[3].squeeze_excite
    rows = torch.randn(2, gate.dim, 4, 5)
    assert torch.equal(gate(rows), rows)


def test_maps_of_odd_side_are_padded_on_both_sides():
    assert [_odd_maps(size) for size in range(3)] == [[], [15], [4, 7, 15]]


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (lambda state: state, 7, "`size` must be 0, 1 or 2, but is 7"),
        (lambda state: state, 1, "must hold EfficientNet-Lite 1"),
        (lambda state: {k: v for k, v in state.items() if k != "_fc.weight"}, 0, "no classifier"),
        (
            lambda state: {k: v for k, v in state.items() if k != "_bn1.weight"},
            0,
            "encoder.top_bn.weight is missing",
        ),
        (
            lambda state: {k: v for k, v in state.items() if "_project" not in k},
            0,
            "project_conv.weight is missing",
        ),
    ],
    ids=["size", "another size", "no classifier", "cut", "no widths"],
)
def test_what_is_no_efficientnet_lite_of_that_size_is_refused(change, size, message):
    with pytest.raises(CheckpointError, match=message):
        load_efficientnet_lite(change(original()), size)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "cut.pth").write_bytes(b"PK")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_efficientnet_lite(tmp_path / "cut.pth", 0)
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="must hold tensors by their names"):
        load_efficientnet_lite(tmp_path / "list.pth", 0)


def dual(**settings):
    text = transformers.BertConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2
    )
    torch.manual_seed(0)
    return DualEncoder(DualEncoderConfig(text, small().config, projection_size=12, **settings)).eval()


@pytest.mark.parametrize(
    "settings",
    [{}, {"text_centred": True}, {"text_keys": 5}],
    ids=["linear", "centred", "kernel"],
)
def test_a_dual_encoder_of_it_is_planned_attached_and_saved(settings, tmp_path):
    model = dual(**settings)
    batch = {"input_ids": torch.randint(0, 40, (3, 6)), **pixels()}
    before = model(**batch)
    again = DualEncoder.from_pretrained(model.save_pretrained(tmp_path) or tmp_path).eval()
    assert torch.equal(again(**batch).text_embeds, before.text_embeds)
    attach(
        model,
        [
            {**BOTTLENECK, "towers": ["text", "vision"]},
            {"method": "lora", "linears": [], "components": ["projector"]},
        ],
    )
    found = model(**batch)
    assert torch.equal(found.image_embeds, before.image_embeds)
    assert torch.equal(found.text_embeds, before.text_embeds)
    (found.image_embeds.sum() + found.text_embeds.sum()).backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())


def test_a_kernel_regression_gives_its_targets_back_and_weighs_by_distance():
    torch.manual_seed(0)
    texts, targets = torch.randn(7, 6), torch.randn(7, 4)
    kernel = KernelProjection(6, 4, 7, sharpness=2.0)
    kernel.fit(texts, targets, ridge=1e-6)
    assert torch.allclose(kernel(texts), targets, atol=1e-3)
    unit = functional.normalize(texts, dim=-1)
    unit = functional.normalize(unit - unit.mean(0), dim=-1)
    assert torch.allclose(kernel.affinity(3 * texts), (2 * (unit @ unit.T - 1)).exp(), atol=1e-5)


def test_a_linear_regression_is_that_of_centred_unit_texts():
    torch.manual_seed(0)
    texts, targets = torch.randn(50, 6), torch.randn(50, 4)
    projection = CentredProjection(6, 4)
    projection.fit(texts, targets, ridge=3.0)
    centred = functional.normalize(texts, dim=-1)
    centred = centred - centred.mean(0)
    weight = projection.values.weight
    residual = centred.T @ (targets - centred @ weight.T) - 3.0 * weight.T
    assert residual.abs().max() < 1e-4
    assert torch.allclose(projection(3 * texts), centred @ weight.T, atol=1e-6)

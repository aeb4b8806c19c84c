"""Attaching in place: the backbone stays itself, and nothing starts before all is checked."""

import inspect

import pytest
import torch
from torch import nn

from weft.core import attach, detach, plan
from weft.core.errors import AddressError, AttachError, BackboneError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs

ZERO = {"method": "bottleneck", "bottleneck_size": 4, "train_full": ["norms"]}


def test_classes_names_and_signatures_stay():
    model, _ = tiny_backbone("bart")
    plain, _ = tiny_backbone("bart")
    attach(model, ZERO)
    assert isinstance(model, type(plain))
    assert type(model).__name__ == type(plain).__name__
    assert isinstance(model.model.encoder.layers[0].fc2, nn.Linear)
    assert type(model.model.encoder.layers[0].fc2).__name__ == "Linear"
    own = inspect.signature(plain.forward).parameters
    now = inspect.signature(model.forward).parameters
    assert [name for name in now if name != "task_ids"] == list(own)
    assert "task_ids" in now


def test_trainability_comes_back():
    model, _ = tiny_backbone("bart")
    model.model.shared.weight.requires_grad_(False)
    before = {name: value.requires_grad for name, value in model.named_parameters()}
    detach(attach(model, ZERO))
    assert {name: value.requires_grad for name, value in model.named_parameters()} == before


def test_banks_hang_once_under_the_root():
    model, _ = tiny_backbone("bart")
    attach(model, {**ZERO, "sharing": {"default": ["task", "layer"]}})
    names = [name for name, _ in model.named_parameters(remove_duplicate=False) if "down.weight" in name]
    assert all(name.startswith("weft.bottleneck.text.") for name in names)
    assert len(names) == len(set(names)) == 5


def test_a_composition_adds_up():
    model, batch = tiny_backbone("visual_seq2seq")
    methods = [
        {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"},
        {"method": "lora", "rank": 2},
        {"method": "prompt", "length": 3},
        {"method": "frozen", "train_full": ["visual_embedding"]},
    ]
    counts = [plan(model, method, ["a", "b"]).trainable_parameters for method in methods]
    planned = plan(model, methods, ["a", "b"])
    assert planned.trainable_parameters == sum(counts)
    assert list(planned.components) == ["visual_embedding", "bottleneck", "lora", "prompt"]
    attach(model, methods, ["a", "b"])
    with model.route(tasks=["a", "b", "a", "b"]):
        assert outputs(model, batch).shape[0] == 4


def test_two_units_of_one_method_need_names():
    model, batch = tiny_backbone("bart")
    twice = [
        {**ZERO, "name": "first"},
        {"method": "bottleneck", "init": "bert", "bottleneck_size": 2, "name": "second"},
    ]
    attach(model, twice)
    assert set(model.weft.plan.components) == {"norms", "first", "second"}
    outputs(model, batch)


def test_parallel_adapters_read_the_input_of_the_sub_layer():
    model, batch = adapted(
        {
            "method": "bottleneck",
            "init": "bert",
            "bottleneck_size": 4,
            "placement": "parallel",
            "blocks": ["ffn"],
            "layers": [1],
            "stacks": ["encoder"],
            "activation": "identity",
        },
        "bart",
        None,
        noise=0.3,
    )
    layer = model.model.encoder.layers[1]
    seen = {}
    layer.fc1.register_forward_hook(lambda module, args, out: seen.update(read=args[0]))
    layer.fc2.register_forward_hook(lambda module, args, out: seen.update(inner=args[0], out=out))
    outputs(model, batch)
    banks = layer.fc2.__dict__["_weft_site"].units[0].banks
    bank = {name: value.stacked()[0] for name, value in banks.items()}
    inner = seen["read"] @ bank["down.weight"] + bank["down.bias"]
    delta = inner @ bank["up.weight"] + bank["up.bias"]
    plain = nn.functional.linear(seen["inner"], layer.fc2.weight, layer.fc2.bias)
    torch.testing.assert_close(seen["out"], plain + delta)
    detach(model)
    assert type(layer.fc1) is nn.Linear


@pytest.mark.parametrize(
    "options",
    [{"norm": True}, {"learned_scale": True, "scale": 0.5}, {"norm": True, "sharing": {"norm": []}}],
    ids=str,
)
@pytest.mark.parametrize("sharing", ["single", "multiple"])
def test_options_of_the_bottleneck(options, sharing):
    method = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": sharing, **options}
    model, batch = adapted(method, "bart", ["a", "b"])
    with model.route(tasks=["a", "b", "b", None]):
        mixed = outputs(model, batch)
    with model.route(task="b"):
        alone = outputs(model, batch)
    torch.testing.assert_close(mixed[1:3], alone[1:3], atol=1e-6, rtol=1e-6)
    mixed.sum().backward()
    assert all(value.grad is not None for _, _, value in model.weft.slots())


def test_fixed_rules_are_saved_but_not_trained(tmp_path):
    from weft.core import load_adapter

    method = {
        "method": "compacter",
        "init": "xavier",
        "bottleneck_size": 4,
        "rank": 1,
        "learned_rule": False,
        "tied_rule": True,
    }
    model, batch = adapted(method, "bart", None)
    assert not any(value.requires_grad for key, _, value in model.weft.slots() if key.endswith(".rule"))
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    assert torch.equal(outputs(load_adapter(other, tmp_path), batch), outputs(model, batch))


def test_lora_drops_inputs_in_training_only():
    model, batch = adapted({"method": "lora", "rank": 2, "dropout": 0.5}, "bart", None, noise=0.5)
    assert torch.equal(outputs(model, batch), outputs(model, batch))
    model.train()
    assert not torch.equal(outputs(model, batch), outputs(model, batch))


@pytest.mark.parametrize(("stabilised", "scale"), [(False, 2.0), (True, 4.0)])
def test_scale_of_lora(stabilised, scale):
    from weft.core import LoRAConfig

    assert LoRAConfig(rank=4, alpha=8, rank_stabilised=stabilised).scale == scale


def test_accelerate_keeps_calling_the_unit():
    hooks = pytest.importorskip("accelerate.hooks")
    model, batch = tiny_backbone("bart")
    expected = outputs(model, batch)
    hooks.add_hook_to_module(model.model.encoder.layers[0].fc2, hooks.ModelHook())
    one = {"layers": [0], "stacks": ["encoder"], "blocks": ["ffn"]}
    attach(model, {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, **one})
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(0.1)
    assert not torch.equal(outputs(model, batch), expected)
    detach(model)
    assert torch.equal(outputs(model, batch), expected)


def test_a_forward_replaced_on_the_instance_is_refused():
    model, _ = tiny_backbone("bart")
    linear = model.model.encoder.layers[0].fc2
    linear.forward = linear.forward
    with pytest.raises(AttachError, match="must not have `forward` replaced on a module, but Linear has"):
        attach(model, ZERO)


def test_attaching_twice_is_refused():
    model, _ = tiny_backbone("bart")
    attach(model, ZERO)
    with pytest.raises(AttachError, match="must be a plain backbone, but it has units already"):
        attach(model, ZERO)


def test_detaching_a_plain_model_is_refused():
    model, _ = tiny_backbone("bart")
    with pytest.raises(AttachError, match="must have units, but it has none"):
        detach(model)


def test_a_module_that_is_never_called_is_refused():
    from weft.core.adapted.attaching import _check_called

    with pytest.raises(AttachError, match="MultiheadAttention reads its weights without"):
        _check_called(nn.Sequential(nn.MultiheadAttention(8, 2)), "0.out_proj")


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"towers": ["vision"]}, AddressError, r"`towers` must be .* but is 'vision'"),
        ({"blocks": ["projection"]}, AddressError, r"`blocks` must be .* but is 'projection'"),
        ({"layers": [0, 7]}, AddressError, r"`layers` must be .* but is '7'"),
        ({"stacks": ["encodr"]}, AddressError, r"`stacks` must be .* Did you mean 'encoder'"),
        ({"train_full": ["norm"]}, AddressError, r"`train_full` must be .* Did you mean 'norms'"),
        ({"train_full": ["lm_head"]}, AddressError, r"'lm_head' is tied to model.shared.weight"),
        (
            {"bottleneck_size": None, "reduction_factor": 7},
            ConfigError,
            r"`reduction_factor` must divide `hidden_size` \(16\), but is 7. Choose one of 1, 2, 4, 8, 16",
        ),
        ({"reduction_factor": 2}, ConfigError, "exactly one of .* both are"),
        ({"bottleneck_size": None}, ConfigError, "exactly one of .* neither is"),
        ({"bottleneck_size": -4}, ConfigError, "bottleneck_size: .* greater than or equal to 1"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_wrong_choice_changes_nothing(changes, error, message):
    model, _ = tiny_backbone("bart")
    state = list(model.state_dict())
    with pytest.raises(error, match=message):
        attach(model, {**ZERO, **changes})
    assert list(model.state_dict()) == state
    assert all(value.requires_grad for value in model.parameters())


@pytest.mark.parametrize(("size", "name"), [(3, "bottleneck_size"), (4, "hidden_size")])
def test_divisions_must_divide_both_widths(size, name):
    model, _ = tiny_backbone("bart")
    divisions = {3: 2, 4: 3}[size]
    with pytest.raises(ConfigError, match=rf"`divisions` must divide `{name}`"):
        plan(
            model, {"method": "compacter", "init": "xavier", "bottleneck_size": size, "divisions": divisions}
        )


def test_an_unknown_family_is_refused():
    with pytest.raises(
        BackboneError, match=r"`config.model_type` must be among the known names, but is None"
    ):
        plan(nn.Linear(2, 2), ZERO)


def test_counts_print_as_users_of_peft_know_them(capsys):
    model, _ = tiny_backbone("bart")
    attach(model, {"method": "frozen", "train_full": ["norms"]})
    model.print_trainable_parameters()
    total = sum(value.numel() for value in model.parameters())
    expected = f"trainable params: 384 || all params: {total:,} || trainable%: {38400 / total:.4f}\n"
    assert capsys.readouterr().out == expected


def test_the_plan_is_a_table_and_plain_data():
    import json

    model, _ = tiny_backbone("bart")
    planned = plan(model, ZERO, ["vqa", "gqa"])
    assert str(planned).splitlines()[0] == "BartForConditionalGeneration (bart), 10 sites, 2 tasks: vqa, gqa"
    names = [line.split()[0] for line in str(planned).splitlines()[1:]]
    assert names == ["norms", "bottleneck", "trainable", "total"]
    data = json.loads(json.dumps(planned.to_dict()))
    assert data["trainable_parameters"] == planned.trainable_parameters
    assert data["sites"][0] == "text.encoder.0.attention"
    assert sum(data["components"].values()) == planned.trainable_parameters


def test_the_meta_device_takes_both_plan_and_attach():
    import transformers

    from weft.core.testing.backbones import bart_config

    with torch.device("meta"):
        model = transformers.BartForConditionalGeneration(bart_config())
    planned = plan(model, ZERO, ["vqa", "gqa"])
    attach(model, ZERO, ["vqa", "gqa"])
    assert sum(value.numel() for value in model.parameters()) == planned.total_parameters
    assert all(value.is_meta for value in model.weft.parameters())
    assert planned.backbone.weights is None

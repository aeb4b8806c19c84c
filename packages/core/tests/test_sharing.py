"""Sharing: slots resolve as declared, and stay shared through gradients, steps and files."""

import pytest
import torch

from weft.core import Sharing, attach, parse_method, plan
from weft.core.errors import ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, per_row_loss, rows_of

TASKS = ["vqa", "gqa"]


def bottleneck(**changes):
    return {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, **changes}


def keys(backbone, **changes):
    model, _ = tiny_backbone(backbone)
    return {name: bank.slots for name, bank in plan(model, bottleneck(**changes), TASKS).banks.items()}


@pytest.mark.parametrize(
    ("sharing", "down", "up"),
    [
        ("single", ("shared",), ("shared",)),
        ("multiple", ("vqa", "gqa"), ("vqa", "gqa")),
        ("half", ("vqa", "gqa"), ("shared",)),
        ({"preset": "half", "shared": "down"}, ("shared",), ("vqa", "gqa")),
        ({"down": ["task"], "up": []}, ("shared",), ("vqa", "gqa")),
        ({"default": "task"}, ("shared",), ("shared",)),
        (Sharing.half("down"), ("shared",), ("vqa", "gqa")),
    ],
    ids=str,
)
def test_presets_and_axes_resolve_to_slots(sharing, down, up):
    slots = keys("bart", sharing=sharing)
    assert slots["bottleneck.text.encoder.0.ffn.down.weight"] == down
    assert slots["bottleneck.text.encoder.0.ffn.up.bias"] == up


def test_one_adapter_for_all_layers():
    slots = keys("bart", sharing={"default": ["task", "layer"]})
    assert len(slots) == 4 * 5
    assert slots["bottleneck.text.decoder.all.cross_attention.up.weight"] == ("shared",)


def test_layers_in_groups():
    model, _ = tiny_backbone("bart")
    shared = plan(model, bottleneck(sharing={"preset": "single", "layer_group": 2}), TASKS)
    assert "bottleneck.text.encoder.0-1.ffn.down.weight" in shared.banks
    assert 2 * shared.trainable_parameters == plan(model, bottleneck(), TASKS).trainable_parameters


def test_stacks_and_blocks_can_be_shared_too():
    slots = keys("bart", sharing={"default": ["task", "layer", "stack", "block"]})
    assert set(slots) == {f"bottleneck.text.all.{name}" for name in NAMES}


NAMES = ("down.weight", "down.bias", "up.weight", "up.bias")


def test_unified_shares_down_across_modalities():
    slots = keys("clip", sharing="unified")
    assert "bottleneck.shared.0.ffn.down.weight" in slots
    assert {"bottleneck.text.0.ffn.up.weight", "bottleneck.vision.0.ffn.up.weight"} <= set(slots)


def test_two_sites_of_one_slot_read_the_same_tensor_and_add_their_gradients():
    tied, batch = adapted(bottleneck(sharing={"default": ["task", "layer"]}), "bart", TASKS)
    apart, _ = adapted(bottleneck(), "bart", TASKS)
    with torch.no_grad():
        for key, slot, value in apart.weft.slots():
            words = key.split(".")
            words[3] = "all"
            value.copy_(tied.weft.banks_by_key[".".join(words)]._parameters[slot])
    for model in (tied, apart):
        per_row_loss(model, batch).sum().backward()
    for key, bank in tied.weft.banks_by_key.items():
        parts = [
            value.grad
            for other, _, value in apart.weft.slots()
            if ".".join("all" if i == 3 else w for i, w in enumerate(other.split("."))) == key
        ]
        assert len(parts) == 2
        torch.testing.assert_close(bank._parameters["shared"].grad, sum(parts), atol=1e-6, rtol=1e-5)


def test_a_part_shared_across_tasks_gets_the_sum_of_their_gradients():
    model, batch = adapted(bottleneck(sharing="half"), "bart", TASKS)
    up = model.weft.banks_by_key["bottleneck.text.encoder.0.ffn.up.weight"]._parameters["shared"]
    found = []
    for row, task in enumerate(["vqa", "gqa"]):
        model.zero_grad()
        with model.route(task=task):
            per_row_loss(model, rows_of(batch, [row])).sum().backward()
        found.append(up.grad.clone())
    model.zero_grad()
    with model.route(tasks=["vqa", "gqa"]):
        per_row_loss(model, rows_of(batch, [0, 1])).sum().backward()
    torch.testing.assert_close(up.grad, found[0] + found[1], atol=1e-6, rtol=1e-5)


def test_sharing_holds_through_a_step_and_a_file(tmp_path):
    from weft.core import load_adapter

    model, batch = adapted(bottleneck(sharing={"default": ["task", "layer"]}), "bart", TASKS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    before = sum(1 for _ in model.parameters())
    per_row_loss(model, batch).sum().backward()
    optimizer.step()
    assert sum(1 for _ in model.parameters()) == before
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    load_adapter(other, tmp_path)
    units = [
        other.get_submodule(f"model.encoder.layers.{layer}.fc2").__dict__["_weft_site"].units[0]
        for layer in (0, 1)
    ]
    assert units[0].banks["down.weight"] is units[1].banks["down.weight"]
    assert torch.equal(per_row_loss(other, batch), per_row_loss(model, batch))


def test_a_rule_follows_its_half_unless_named():
    model, _ = tiny_backbone("bart")
    compacter = {"method": "compacter", "init": "xavier", "bottleneck_size": 4, "sharing": "half"}
    banks = plan(model, compacter, TASKS).banks
    assert banks["compacter.text.encoder.0.ffn.rule.up"].slots == ("shared",)
    assert banks["compacter.text.encoder.0.ffn.rule.down"].slots == ("vqa", "gqa")
    everywhere = {**compacter, "sharing": {"rule": ["task", "layer", "stack", "block"], "default": []}}
    rules = {key: bank.slots for key, bank in plan(model, everywhere, TASKS).banks.items() if ".rule." in key}
    assert rules == {"compacter.text.all.rule.down": ("shared",), "compacter.text.all.rule.up": ("shared",)}


def test_a_rule_shared_across_tasks_serves_weights_of_their_own():
    method = {
        "method": "compacter",
        "init": "xavier",
        "bottleneck_size": 4,
        "sharing": {"rule": ["task"], "default": []},
    }
    model, batch = adapted(method, "bart", TASKS)
    with model.route(tasks=["vqa", "gqa", "vqa", "gqa"]):
        mixed = per_row_loss(model, batch)
    for row, task in enumerate(["vqa", "gqa", "vqa", "gqa"]):
        with model.route(task=task):
            torch.testing.assert_close(per_row_loss(model, rows_of(batch, [row]))[0], mixed[row])


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ("hlaf", r"`sharing` must be among the known names, but is 'hlaf'. Did you mean 'half'"),
        ({"preset": "half", "shared": "upp"}, r"`sharing.shared` must be .* Did you mean 'up'"),
        ({"preset": "single", "shared": "down"}, r"an option of the preset 'single' .* 'shared'"),
        ({"preset": "half", "group": 2}, r"an option of the preset 'half' .* 'group'"),
        ({"down": ["tsk"]}, r"`sharing.down` must be .* 'tsk'. Did you mean 'task'"),
        ({"down": 3}, r"`sharing.down` must be a list of axes, but is 3"),
        ({"default": "taks"}, r"`sharing.default` must be .* Did you mean 'task'"),
        ({"default": ["layer"], "layer_group": 2}, r"`sharing.layer_group` must be 1"),
        ({"default": [], "layer_group": 0}, r"greater than or equal to 1"),
    ],
    ids=str,
)
def test_a_wrong_policy_is_refused(sharing, message):
    with pytest.raises(ConfigError, match=message):
        parse_method(bottleneck(sharing=sharing))


@pytest.mark.parametrize(
    ("backbone", "sharing", "message"),
    [
        ("bart", {"rule": ["task"]}, r"must name parts of the unit 'bottleneck' \(down, up, norm, scale\)"),
        ("bart", "unified", r"may share `down` across `modality` only where there are several"),
    ],
    ids=["no such part", "one modality"],
)
def test_a_meaningless_policy_is_refused(backbone, sharing, message):
    model, _ = tiny_backbone(backbone)
    with pytest.raises(ConfigError, match=message):
        plan(model, bottleneck(sharing=sharing), TASKS)


def test_unequal_widths_cannot_be_joined():
    import transformers

    model, _ = tiny_backbone("clip")
    config = model.config
    config.vision_config.hidden_size = 32
    wide = transformers.CLIPModel(config)
    message = r"`sharing` must join equal shapes, but shares `down` across modality"
    with pytest.raises(ConfigError, match=message):
        attach(wide, bottleneck(sharing="unified"))
    assert not hasattr(wide, "weft")


def test_policies_survive_their_own_words():
    for policy in (Sharing.single(), Sharing.multiple(), Sharing.half("down"), Sharing.unified()):
        assert Sharing.model_validate(policy.to_words()) == policy

"""Sharing among some: groups of tasks and rules for layers equal models built by hand, through steps and files."""

import copy
import pickle

import pytest
import torch

from weft.core import Sharing, attach, combine_tasks, detach, load_adapter, parse_method, plan
from weft.core.adapted.tasks import add_task, remove_task
from weft.core.errors import CheckpointError, ConfigError
from weft.core.files.interop.peft import export_peft, import_peft
from weft.core.sharing import slot_for
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import ROWS, TASKS, adapted, gradients, per_row_loss, rows_of

GROUPS = [["vqa", "gqa"], ["nlvr"], ["caption"]]
IN_GROUPS = {"down": ["task"], "up": {"task": GROUPS}}
PAIRS = {"default": {"task": [["vqa", "caption"], ["gqa", "nlvr"]]}}
METHODS = {
    "bottleneck": {"method": "bottleneck", "init": "bert", "bottleneck_size": 4},
    "lora": {"method": "lora", "rank": 2},
    "compacter": {"method": "compacter", "init": "xavier", "bottleneck_size": 4},
    "prefix": {"method": "prefix", "length": 2},
    "ia3": {"method": "ia3"},
    "hydra_lora": {"method": "hydra_lora", "rank": 2},
}


def method(name="bottleneck", sharing=None):
    return {**METHODS[name], "sharing": IN_GROUPS if sharing is None else sharing}


def slots_of(sharing, backbone="bart", tasks=TASKS, **options):
    model, _ = tiny_backbone(backbone)
    return {
        key: bank.slots for key, bank in plan(model, method(sharing=sharing), tasks, **options).banks.items()
    }


def assert_equal_to_one_built_by_hand(grouped, batch, by_hand):
    """Give a model with a slot for each task the values of the groups: losses and summed gradients are the same."""
    with torch.no_grad():
        for key, slot, value in by_hand.weft.slots():
            value.copy_(grouped.weft.banks_by_key[key].slot_of(slot))
    for model in (grouped, by_hand):
        with model.route(tasks=list(ROWS)):
            per_row_loss(model, batch).sum().backward()
    with torch.no_grad(), grouped.route(tasks=list(ROWS)), by_hand.route(tasks=list(ROWS)):
        torch.testing.assert_close(
            per_row_loss(grouped, batch), per_row_loss(by_hand, batch), atol=1e-6, rtol=1e-6
        )
    for key, bank in grouped.weft.banks_by_key.items():
        for slot, value in bank._parameters.items():
            own = [
                other.grad
                for task, other in by_hand.weft.banks_by_key[key]._parameters.items()
                if slot_for(task, [slot]) and other.requires_grad
            ]
            if own:
                torch.testing.assert_close(value.grad, sum(own), atol=1e-6, rtol=1e-5, msg=f"{key}.{slot}")


@pytest.mark.parametrize("name", METHODS)
def test_tasks_in_groups_are_tasks_with_equal_slots_and_summed_gradients(name):
    grouped, batch = adapted(method(name, PAIRS), "bart")
    by_hand, _ = adapted(method(name, "multiple"), "bart")
    assert_equal_to_one_built_by_hand(grouped, batch, by_hand)


def test_rules_for_layers_are_those_of_a_model_built_by_hand():
    sharing = {
        "preset": "multiple",
        "layers": [
            {"range": 0, "stacks": "encoder", "up": {"task": GROUPS}},
            {"range": "0-1", "stacks": "decoder", "blocks": ["ffn"], "preset": "single"},
        ],
    }
    slots = slots_of(sharing)
    assert slots["bottleneck.text.encoder.0.ffn.up.weight"] == ("gqa+vqa", "nlvr", "caption")
    assert slots["bottleneck.text.encoder.0.ffn.down.weight"] == TASKS
    assert slots["bottleneck.text.encoder.1.ffn.up.weight"] == TASKS
    assert slots["bottleneck.text.decoder.1.ffn.down.bias"] == ("shared",)
    assert slots["bottleneck.text.decoder.1.attention.down.bias"] == TASKS
    grouped, batch = adapted(method(sharing=sharing), "bart")
    by_hand, _ = adapted(method(sharing="multiple"), "bart")
    assert_equal_to_one_built_by_hand(grouped, batch, by_hand)


def test_mixed_rows_are_those_of_single_tasks():
    model, batch = adapted(method(), "bart")
    with model.route(tasks=list(ROWS)):
        mixed = per_row_loss(model, batch)
    for row, task in enumerate(ROWS):
        with model.route(task=task):
            torch.testing.assert_close(per_row_loss(model, rows_of(batch, [row]))[0], mixed[row])


def test_rows_without_a_task_pass_through_groups():
    model, batch = adapted(method(sharing=PAIRS), "bart")
    with torch.no_grad():
        with model.route(tasks=["vqa", None, "nlvr", None]):
            mixed = per_row_loss(model, batch)
        with model.disable_adapter():
            plain = per_row_loss(model, batch)
    torch.testing.assert_close(mixed[[1, 3]], plain[[1, 3]])
    assert (mixed[[0, 2]] - plain[[0, 2]]).abs().min() > 1e-5


def test_a_group_learns_where_one_of_its_tasks_is_present_and_rests_where_none_is():
    model, batch = adapted(method(), "bart")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    before = {(key, slot): value.clone() for key, slot, value in model.weft.slots()}
    with model.route(tasks=["vqa", "vqa", "nlvr", "nlvr"]):
        per_row_loss(model, batch).sum().backward()
    optimizer.step()
    moved = {slot for key, slot, value in model.weft.slots() if not torch.equal(value, before[key, slot])}
    assert moved == {"shared", "gqa+vqa", "nlvr"}


def test_a_model_in_groups_is_copied_pickled_and_compiled():
    model, batch = adapted(method(), "bart")
    with torch.no_grad(), model.route(tasks=list(ROWS)):
        expected = per_row_loss(model, batch)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        with torch.no_grad(), other.route(tasks=list(ROWS)):
            assert torch.equal(per_row_loss(other, batch), expected)
    compiled = torch.compile(model, backend="aot_eager")
    with torch.no_grad(), model.route(tasks=list(ROWS)):
        torch.testing.assert_close(per_row_loss(compiled, batch), expected)


def test_a_file_gives_back_all_tasks_or_one_of_them_alone(tmp_path):
    model, batch = adapted(method(), "bart")
    model.save_pretrained(tmp_path / "all")
    with torch.no_grad(), model.route(tasks=list(ROWS)):
        expected = per_row_loss(model, batch)
    whole = load_adapter(tiny_backbone("bart")[0], tmp_path / "all")
    with torch.no_grad(), whole.route(tasks=list(ROWS)):
        assert torch.equal(per_row_loss(whole, batch), expected)
    alone = load_adapter(tiny_backbone("bart")[0], tmp_path / "all", tasks=["gqa"])
    assert {slot for _, slot, _ in alone.weft.slots()} == {"shared", "gqa+vqa"}
    with torch.no_grad():
        torch.testing.assert_close(per_row_loss(alone, batch)[3], expected[3])
    alone.save_pretrained(tmp_path / "alone")
    again = load_adapter(tiny_backbone("bart")[0], tmp_path / "alone")
    load_adapter(again, tmp_path / "all", tasks=["nlvr", "vqa"])
    with torch.no_grad(), again.route(tasks=["nlvr", "vqa", "nlvr", "gqa"]):
        torch.testing.assert_close(per_row_loss(again, batch)[[1, 2, 3]], expected[[1, 2, 3]])


def test_a_file_of_other_groups_is_refused(tmp_path):
    model, _ = adapted(method(), "bart")
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    attach(other, method(sharing=PAIRS), TASKS)
    with pytest.raises(CheckpointError, match=r"missing: .*caption\+vqa"):
        load_adapter(other, tmp_path)


def test_a_new_task_shares_its_declared_group_or_gets_its_own(tmp_path):
    model, batch = adapted(method(), "bart")
    add_task(model, "new", like="gqa")
    up = model.weft.banks_by_key["bottleneck.text.encoder.0.ffn.up.weight"]
    assert up.slots == ("gqa+vqa", "nlvr", "caption", "new")
    with torch.no_grad(), model.route(tasks=["vqa", "gqa", "new", "new"]):
        losses = per_row_loss(model, batch)
    with torch.no_grad(), model.route(task="vqa"):
        torch.testing.assert_close(per_row_loss(model, batch), losses)
    model.save_pretrained(tmp_path)
    assert load_adapter(tiny_backbone("bart")[0], tmp_path).weft.tasks == (*TASKS, "new")
    kept = up.slot_of("gqa").clone()
    remove_task(model, "vqa")
    assert model.weft.plan.banks["bottleneck.text.encoder.0.ffn.up.weight"].slots == up.slots
    add_task(model, "vqa")
    assert up.slots == ("gqa+vqa", "nlvr", "caption", "new")
    assert torch.equal(up.slot_of("vqa"), kept)
    with torch.no_grad(), model.route(tasks=["vqa", "vqa", "gqa", "gqa"]):
        torch.testing.assert_close(per_row_loss(model, batch), losses)


def test_removing_the_first_of_a_group_keeps_the_others_where_they_were():
    model, batch = adapted(method(sharing=PAIRS), "bart")
    with torch.no_grad(), model.route(tasks=list(ROWS)):
        expected = per_row_loss(model, batch)
    remove_task(model, "vqa")
    with torch.no_grad(), model.route(tasks=["caption", "nlvr", "nlvr", "gqa"]):
        torch.testing.assert_close(per_row_loss(model, batch)[[0, 2, 3]], expected[[0, 2, 3]])
    remove_task(model, "caption")
    assert {slot for _, slot, _ in model.weft.slots()} == {"gqa+nlvr"}


def test_a_sum_of_tasks_does_not_overwrite_a_group():
    model, _ = adapted(method("lora", PAIRS), "bart")
    combine_tasks(model, "mean", {"vqa": 0.5, "gqa": 0.5})
    remove_task(model, "vqa")
    with pytest.raises(
        ConfigError, match=r"`task` must not be in a group whose slot other tasks use, but 'vqa'"
    ):
        combine_tasks(model, "vqa", {"gqa": 1.0})


def test_one_task_of_a_group_is_exported(tmp_path):
    model, batch = adapted(method("lora", PAIRS), "bart")
    with torch.no_grad(), model.route(task="nlvr"):
        expected = per_row_loss(model, batch)
    export_peft(model, tmp_path, task="nlvr")
    other = import_peft(detach(model), tmp_path, task="nlvr")
    with torch.no_grad():
        torch.testing.assert_close(per_row_loss(other, batch), expected)


def test_layers_that_share_within_a_rule_do_not_share_beyond_it():
    sharing = {
        "default": ["layer", "task"],
        "layers": [{"range": 1, "blocks": ["ffn"], "up": ["layer", "block"], "down": []}],
    }
    slots = slots_of(sharing)
    assert slots["bottleneck.text.encoder.all.ffn.up.weight"] == ("shared",)
    assert slots["bottleneck.text.encoder.1-1.ffn.up.weight"] == TASKS
    model, batch = adapted(method(sharing=sharing), "bart")
    with model.route(tasks=list(ROWS)):
        per_row_loss(model, batch).sum().backward()
    assert all(value is not None for value in gradients(model).values())


def test_groups_of_layers_within_a_range_count_from_its_first_layer():
    sharing = {"default": [], "layer_group": 2, "layers": [{"range": "1-1", "up": []}]}
    keys = set(slots_of(sharing))
    assert "bottleneck.text.encoder.0-1.ffn.up.weight" in keys
    assert "bottleneck.text.encoder.1-1.ffn.up.weight" in keys


def test_towers_may_differ():
    sharing = {"default": ["task"], "layers": [{"towers": ["text"], "default": []}]}
    slots = slots_of(sharing, "clip")
    assert slots["bottleneck.vision.0.ffn.up.weight"] == ("shared",)
    assert slots["bottleneck.text.0.ffn.up.weight"] == TASKS


def test_a_policy_comes_back_from_its_words():
    policy = parse_method(
        method(
            sharing={
                "preset": "half",
                "layers": [{"range": "0-1", "stacks": "encoder", "up": {"task": GROUPS, "layer": "all"}}],
            }
        )
    )[0].sharing
    assert Sharing.model_validate(policy.to_words()) == policy
    assert policy.to_words()["layers"] == [
        {
            "range": "0-1",
            "stacks": ["encoder"],
            "up": {"task": [["caption"], ["gqa", "vqa"], ["nlvr"]], "layer": "all"},
        }
    ]


def test_a_plan_says_in_words_who_shares():
    model, _ = tiny_backbone("bart")
    sharing = {**IN_GROUPS, "layers": [{"range": 1, "up": []}]}
    shown = str(plan(model, method(sharing=sharing), TASKS))
    assert "bottleneck shares: down across task; up gqa with vqa, caption alone, nlvr alone" in shown
    assert "bottleneck shares in layer 1: up across nothing" in shown
    shown = str(plan(model, method("lora", sharing={"up": {"task": GROUPS}}), TASKS))
    assert "lora shares: down as the unit says; up gqa with vqa, caption alone, nlvr alone" in shown


@pytest.mark.parametrize(
    ("sharing", "message"),
    [
        ({"up": {"task": [["vqa", "gqa"], ["gqa", "nlvr"]]}}, "one group, but 'gqa' is there twice"),
        ({"up": {"task": [["vqa", "gqa"]]}}, r"every task into a group, but leaves out nlvr, caption"),
        ({"up": {"task": [*GROUPS, ["gqq"]]}}, r"`sharing.up.task` must be .* 'gqq'. Did you mean 'gqa'"),
        ({"up": {"task": ["vqa", "gqa"]}}, r"must be a list of groups of tasks, or `all`, but is \['vqa'"),
        ({"up": {"task": []}}, r"must be a list of groups of tasks, or `all`, but is \[\]"),
        ({"up": {"task": [["VQA"]]}}, "must group names of tasks"),
        (
            {"up": {"layer": [["0", "1"]]}},
            r"`sharing.up.layer` must be `all`, for only tasks share in groups",
        ),
        ({"up": {"tusk": "all"}}, "Did you mean 'task'"),
        (
            {"layers": [{"range": "0-1", "up": []}, {"range": "1-2", "up": []}]},
            "layers 0-1 and layers 1-2 overlap",
        ),
        (
            {"layers": [{"range": "0-1", "up": []}, {"blocks": "ffn", "up": []}]},
            "layers 0-1 and block ffn overlap",
        ),
        (
            {"layers": [{"range": "6-11", "up": []}]},
            r"acts at no site of layers 6-11. It acts in .* layers 0 to 1",
        ),
        ({"layers": [{"range": "5-0", "up": []}]}, "the lower layer first, but is '5-0'. Write 0-5"),
        ({"layers": [{"range": "first", "up": []}]}, "first and the last layer, such as 0-5"),
        ({"layers": [{"range": "0-1"}]}, "say where it holds .* and what is shared"),
        ({"layers": [{"up": []}]}, "say where it holds .* and what is shared"),
        ({"layers": [{"range": 0, "blocks": [], "up": []}]}, "must name something, but one is empty"),
        ({"layers": [{"range": 0, "layer_group": 2, "up": []}]}, "must be beside `sharing.layers`"),
        ({"layers": [{"range": 0, "upp": []}]}, r"must name parts of the unit 'bottleneck' .* 'upp'"),
        (
            {"layers": [{"range": 0, "up": {"task": [["vqa"]]}}]},
            "every task into a group, but leaves out gqa, nlvr, caption",
        ),
    ],
    ids=lambda value: str(value)[:50],
)
def test_nonsense_is_refused_with_the_reason(sharing, message):
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match=message):
        plan(model, method(sharing=sharing), TASKS)

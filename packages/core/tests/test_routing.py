"""Routing: rows and tasks meet in beams, per modality, under compile and when checkpoints are recomputed."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from weft.core.adapted.routing import route_ids, route_names
from weft.core.backbone.sites import Site
from weft.core.backbone.wiring import Wiring
from weft.core.errors import ConfigError, RoutingError
from weft.core.sharing import check_tasks
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import (
    ROWS,
    TASKS,
    adapted,
    checkpoint_activations,
    gradients,
    outputs,
    per_row_loss,
    rows_of,
)

MULTIPLE = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "multiple"}
IDS = torch.tensor([TASKS.index(task) for task in ROWS])
SITE = Site("vision", "", 3, "ffn", Wiring("path"), 16, 16, modality="vision")


def test_names_ids_and_argument_route_alike():
    model, batch = adapted(MULTIPLE, "bart")
    with model.route(tasks=list(ROWS)):
        expected = outputs(model, batch)
    with model.route(task_ids=IDS):
        assert torch.equal(outputs(model, batch), expected)
    assert torch.equal(model(**batch, task_ids=IDS).logits, expected)
    assert model.weft.routing is None


def test_one_task_until_further_notice():
    model, batch = adapted(MULTIPLE, "bart")
    with model.route(task="gqa"):
        expected = outputs(model, batch)
    model.set_task("gqa")
    assert torch.equal(outputs(model, batch), expected)
    model.set_task("vqa")
    assert not torch.equal(outputs(model, batch), expected)
    model.set_task(None)
    with pytest.raises(RoutingError, match="must be routed before the model is called"):
        outputs(model, batch)


@pytest.mark.parametrize("backbone", ["bart", "t5", "visual_seq2seq"])
def test_beams_of_mixed_tasks_are_those_of_single_tasks(backbone):
    model, batch = adapted(MULTIPLE, backbone, noise=0.3)
    batch.pop("labels")
    options = {"num_beams": 3, "max_new_tokens": 5, "do_sample": False, "early_stopping": False}
    with model.route(tasks=list(ROWS)):
        mixed = model.generate(**batch, **options)
    assert torch.equal(model.generate(**batch, **options, task_ids=IDS), mixed)
    for row, task in enumerate(ROWS):
        with model.route(task=task):
            alone = model.generate(**rows_of(batch, [row]), **options)[0]
        length = min(len(alone), mixed.shape[1])
        assert torch.equal(alone[:length], mixed[row, :length])


def test_ten_texts_and_four_images_have_tasks_of_their_own():
    model, batch = adapted({**MULTIPLE, "towers": ["text", "vision"]}, "clip")
    batch["input_ids"] = torch.randint(5, 90, (10, 7))
    batch["input_ids"][:, -1] = 99
    batch["return_loss"] = False
    rows = {"text": [*ROWS, *ROWS, None, "gqa"], "vision": ["gqa", "vqa", None, "nlvr"]}
    with model.route(tasks=rows):
        result = model(**batch)
    assert result.logits_per_text.shape == (10, 4)
    for task in (*TASKS, None):
        with model.route(tasks=[task]):
            alone = model(**batch)
        for kind, found, expected in (
            ("text", result.text_embeds, alone.text_embeds),
            ("vision", result.image_embeds, alone.image_embeds),
        ):
            mine = [row for row, name in enumerate(rows[kind]) if name == task]
            torch.testing.assert_close(found[mine], expected[mine], atol=1e-6, rtol=1e-6)
    message = r"must give the rows of every modality, but vision.0.attention"
    with pytest.raises(RoutingError, match=message), model.route(tasks={"text": rows["text"]}):
        model(**batch)
    message = r"`tasks` must be one per row of `pixel_values` \(4\), but there are 10"
    with pytest.raises(RoutingError, match=message), model.route(tasks=rows["text"]):
        model(**batch)


def test_texts_that_outnumber_the_images_are_refused_however_the_numbers_divide():
    model, batch = adapted({**MULTIPLE, "towers": ["text", "vision"]}, "clip")
    batch = {"input_ids": torch.randint(5, 90, (4, 7)), "pixel_values": batch["pixel_values"][:2]}
    message = r"`tasks` must be one per row of `input_ids` \(4\), but there are 2"
    with pytest.raises(RoutingError, match=message), model.route(tasks=["vqa", "gqa"]):
        model(**batch)
    with model.route(tasks=["vqa", "gqa"], owners={"text": [0, 1, 1, 1]}):
        by_owners = model(**batch).logits_per_text
    with model.route(tasks={"text": ["vqa", "gqa", "gqa", "gqa"], "vision": ["vqa", "gqa"]}):
        assert torch.equal(model(**batch).logits_per_text, by_owners)


@pytest.mark.parametrize("rows", [4, 8, 12])
def test_ids_are_repeated_row_by_row(rows):
    ids = route_ids(IDS).rows(SITE, rows, IDS.device)
    assert torch.equal(ids, IDS.repeat_interleave(rows // 4))


def test_one_graph_serves_all_routings():
    model, batch = adapted(MULTIPLE, "bart")
    counter = CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for routing in (list(ROWS), ["vqa"] * 4, ["gqa", "vqa", "gqa", "nlvr"]):
        with model.route(tasks=routing):
            expected = outputs(model, batch)
            assert torch.equal(outputs(compiled, batch), expected)
    assert counter.frame_count == 1


def test_ids_as_an_argument_compile_too():
    # BART of transformers 5.6 draws in training which layers it drops, which no compiler takes.
    model, batch = adapted(MULTIPLE, "t5")
    counter = CompileCounter()
    compiled = torch.compile(model.train(), backend=counter, fullgraph=True)
    for ids in (IDS, IDS.flip(0)):
        assert torch.equal(compiled(**batch, task_ids=ids).logits, model(**batch, task_ids=ids).logits)
    assert counter.frame_count == 1
    assert model.weft.presence.collect() == {0, 1, 2, 3}


@pytest.mark.parametrize("reentrant", [False, True], ids=["non-reentrant", "reentrant"])
@pytest.mark.parametrize("before_attach", [False, True], ids=["after attach", "before attach"])
@pytest.mark.parametrize("backbone", ["bart", "t5", "visual_seq2seq"])
def test_recomputed_checkpoints_keep_the_routing(backbone, before_attach, reentrant):
    from weft.core import attach

    model, batch = adapted(MULTIPLE, backbone)
    model.train()
    with model.route(tasks=list(ROWS)):
        loss = per_row_loss(model, batch).sum()
    loss.backward()
    expected = gradients(model)
    other, _ = tiny_backbone(backbone)
    if before_attach:
        checkpoint_activations(other, use_reentrant=reentrant)
    attach(other, MULTIPLE, TASKS)
    if not before_attach:
        checkpoint_activations(other, use_reentrant=reentrant)
    if reentrant:
        other.enable_input_require_grads()
    other.weft.load_state_dict(model.weft.state_dict())
    other.train()
    with other.route(tasks=list(ROWS)):
        loss = per_row_loss(other, {**batch, "use_cache": False}).sum()
    with other.route(task="vqa"):
        loss.backward()
    found = gradients(other)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5, msg=name)


def test_absent_tasks_are_known_however_rows_are_routed():
    model, batch = adapted(MULTIPLE, "bart")
    model.train()
    bank = model.weft.banks_by_key["bottleneck.text.encoder.0.ffn.up.weight"]
    slots = dict(bank.named_parameters())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)

    def trained(routing, rows=4):
        optimizer.zero_grad()
        part = rows_of(batch, list(range(rows)))
        with routing:
            per_row_loss(model, part).sum().backward()
            optimizer.step()
        return {slot for slot, value in slots.items() if value.grad is not None}

    assert trained(model.route(task="vqa")) == {"vqa"}
    assert trained(model.route(tasks=["gqa", None, "gqa", "nlvr"])) == {"gqa", "nlvr"}
    assert trained(model.route(task_ids=torch.tensor([3, -1, 3, 3]))) == {"caption"}
    optimizer.zero_grad()
    per_row_loss(model, {**batch, "task_ids": torch.tensor([1, 1, 0, -1])}).sum().backward()
    optimizer.step()
    assert {slot for slot, value in slots.items() if value.grad is not None} == {"vqa", "gqa"}


def test_evaluation_between_steps_brings_no_task_in():
    model, batch = adapted(MULTIPLE, "bart")
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()
    with model.route(task="vqa"):
        per_row_loss(model, batch).sum().backward()
    with torch.no_grad(), model.route(task="gqa"):
        outputs(model, batch)
    model.eval()
    with model.route(task="nlvr"):
        outputs(model, batch)
    optimizer.step()
    assert {slot for _, slot, value in model.weft.slots() if value.grad is not None} == {"vqa"}


def test_accumulated_batches_count_together():
    model, batch = adapted(MULTIPLE, "bart")
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for task in ("vqa", "nlvr"):
        with model.route(task=task):
            per_row_loss(model, batch).sum().backward()
    optimizer.step()
    assert {slot for _, slot, value in model.weft.slots() if value.grad is not None} == {"vqa", "nlvr"}


def test_the_batch_may_repeat_one_task_name():
    routing = route_names(["vqa"], TASKS, torch.device("cpu"))
    assert routing.rows(SITE, 6, torch.device("cpu")).tolist() == [0] * 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`route` must get exactly one of"),
        ({"task": "vqa", "tasks": ["vqa"]}, "`route` must get exactly one of"),
        ({"tasks": ["vqa", "gqq"]}, "'gqq'. Did you mean 'gqa'"),
        ({"tasks": []}, "`tasks` must name a task per row, but is empty"),
        ({"task_ids": torch.zeros(2, 2, dtype=torch.long)}, "`task_ids` must be a one-dimensional tensor"),
        ({"task_ids": torch.zeros(2)}, "`task_ids` must be a one-dimensional tensor"),
        ({"task_ids": [0, 1]}, "`task_ids` must be a one-dimensional tensor"),
    ],
    ids=["none", "two", "unknown", "empty", "two dimensions", "floats", "a list"],
)
def test_a_wrong_routing_is_refused(arguments, message):
    model, _ = adapted(MULTIPLE, "bart")
    with pytest.raises(RoutingError, match=message), model.route(**arguments):
        pass


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ("vqa", "`tasks` must be a list of names, but is 'vqa'"),
        ([], "`tasks` must be a list of names"),
        (["VQA"], "must be of lower-case letters, digits and underscores"),
        (["a.b"], "must be of lower-case letters"),
        (["shared"], "not 'shared'"),
        ([3], "must be of lower-case letters"),
        (["vqa", "gqa", "vqa"], "`tasks` must be unique, but 'vqa' occurs twice"),
    ],
    ids=str,
)
def test_wrong_task_names_are_refused(tasks, message):
    with pytest.raises(ConfigError, match=message):
        check_tasks(tasks)


def test_task_names_may_be_methods_of_modules(tmp_path):
    from weft.core import load_adapter

    tasks = ["train", "half", "type", "0"]
    model, batch = adapted(MULTIPLE, "bart", tasks)
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    load_adapter(other, tmp_path)
    with model.route(tasks=tasks), other.route(tasks=tasks):
        assert torch.equal(outputs(model, batch), outputs(other, batch))


def test_absent_tasks_keep_their_slots_in_evaluation_mode_too():
    model, batch = adapted(MULTIPLE, "bart")
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    before = {(key, slot): value.clone() for key, slot, value in model.weft.slots()}
    assert not model.training
    with model.route(tasks=["vqa", "vqa", None, "gqa"]):
        loss = per_row_loss(model, batch).sum()
    with model.route(task="nlvr"):
        outputs(model, batch)  # recorded, but no gradient comes back
    loss.backward()
    optimizer.step()
    changed = {slot for key, slot, value in model.weft.slots() if not torch.equal(value, before[key, slot])}
    assert changed == {"vqa", "gqa"}

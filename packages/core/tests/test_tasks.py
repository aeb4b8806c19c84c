"""Tasks that come and go."""

import pytest
import torch

from weft.core import attach, load_adapter
from weft.core.adapted.tasks import add_task, remove_task
from weft.core.errors import AttachError, ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs

HALF = {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "sharing": "half"}


def routed(model, batch, task):
    with model.route(task=task):
        return outputs(model, batch)


def test_a_new_task_leaves_the_others_alone():
    model, batch = adapted(HALF, "bart", ["vqa", "gqa"])
    before = routed(model, batch, "gqa")
    model.add_task("nlvr")
    assert model.weft.tasks == ("vqa", "gqa", "nlvr")
    assert torch.equal(routed(model, batch, "gqa"), before)
    assert not torch.equal(routed(model, batch, "nlvr"), before)
    trained = sum(value.numel() for value in model.parameters() if value.requires_grad)
    assert trained == model.weft.plan.trainable_parameters


def test_a_new_task_may_start_as_another():
    model, batch = adapted(HALF, "bart", ["vqa", "gqa"])
    model.add_task("nlvr", like="gqa")
    assert torch.equal(routed(model, batch, "nlvr"), routed(model, batch, "gqa"))


def test_a_removed_task_leaves_the_others_alone(tmp_path):
    model, batch = adapted(HALF, "bart", ["vqa", "gqa", "nlvr"])
    before = routed(model, batch, "nlvr")
    model.remove_task("gqa")
    assert torch.equal(routed(model, batch, "nlvr"), before)
    assert not any(name.endswith(".gqa") for name in model.state_dict())
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    load_adapter(other, tmp_path)
    assert other.weft.tasks == ("vqa", "nlvr")
    assert torch.equal(routed(other, batch, "nlvr"), before)


def test_a_task_of_a_file_joins_an_adapted_model(tmp_path):
    source, batch = adapted({**HALF, "sharing": "multiple"}, "bart", ["vqa", "gqa"])
    source.save_pretrained(tmp_path)
    model, _ = tiny_backbone("bart")
    attach(model, {**HALF, "sharing": "multiple"}, ["nlvr"])
    before = routed(model, batch, "nlvr")
    load_adapter(model, tmp_path, tasks=["gqa"])
    assert model.weft.tasks == ("nlvr", "gqa")
    close = {"atol": 1e-6, "rtol": 1e-6}
    torch.testing.assert_close(routed(model, batch, "gqa"), routed(source, batch, "gqa"), **close)
    # With one task alone, no row is looked up and rounding may differ.
    torch.testing.assert_close(routed(model, batch, "nlvr"), before, **close)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.add_task("vqa"), "`tasks` must be unique, but 'vqa' occurs twice"),
        (lambda model: model.add_task("VQA"), "must be of lower-case letters"),
        (lambda model: model.add_task("new", like="vqaa"), r"`like` must be .* Did you mean 'vqa'"),
        (lambda model: model.remove_task("gqaa"), r"`task` must be .* Did you mean 'gqa'"),
        (
            lambda model: (model.remove_task("gqa"), model.remove_task("vqa")),
            "`task` must leave another task",
        ),
    ],
    ids=["taken", "capital", "like", "unknown", "last"],
)
def test_wrong_tasks_are_refused(change, message):
    model, _ = adapted(HALF, "bart", ["vqa", "gqa"])
    with pytest.raises(ConfigError, match=message):
        change(model)


@pytest.mark.parametrize("change", [lambda m: add_task(m, "new"), lambda m: remove_task(m, "new")])
def test_a_plain_model_has_no_tasks(change):
    model, _ = tiny_backbone("bart")
    with pytest.raises(AttachError, match="must have units, but it has none"):
        change(model)

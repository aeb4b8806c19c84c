"""`attach(..., check=batch)` says how far fresh units move a model; checkpoints keep the start they were made with."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

from weft.core import StartWarning, attach, load_adapter
from weft.core.errors import AttachError, RoutingError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import outputs

BERT = {"method": "bottleneck", "bottleneck_size": 4, "init": "bert"}
CHECKPOINTS = Path(__file__).parent / "data" / "checkpoints"


def without_labels(batch):
    return {name: value for name, value in batch.items() if name != "labels"}


@pytest.mark.parametrize("name", ["bart", "t5", "clip"])
@pytest.mark.parametrize("tasks", [None, ["vqa", "gqa"]], ids=["one task", "two tasks"])
def test_a_start_that_is_the_backbone_is_silent(name, tasks):
    model, batch = tiny_backbone(name)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attach(
            model, {"method": "bottleneck", "bottleneck_size": 4, "sharing": "multiple"}, tasks, check=batch
        )


def test_the_warning_gives_the_distance_and_the_words_of_the_identity():
    model, batch = tiny_backbone("bart")
    batch = without_labels(batch)
    with torch.no_grad():
        before = model(**batch)
    methods = [BERT, {"method": "lora", "rank": 2}, {"method": "prompt", "length": 2}]
    with pytest.warns(StartWarning) as caught:
        attach(model, methods, check=batch)
    assert caught[0].filename == __file__
    message = str(caught[0].message)
    assert (
        "'bottleneck' does with `init='zero'`, its default. 'prompt' cannot start as the backbone." in message
    )
    assert "lora" not in message
    with torch.no_grad():
        after = model(**batch)
    moved = float((after.logits - before.logits).norm() / before.logits.norm())
    assert f"move `logits` by {moved:.3g} times its norm" in message


def test_the_check_leaves_modes_random_numbers_and_routing_alone():
    model, batch = tiny_backbone("bart")
    plain, _ = tiny_backbone("bart")
    model.train().model.encoder.layers[0].eval()
    modes = [module.training for module in model.modules()]
    torch.manual_seed(3)
    attach(plain, BERT, ["vqa", "gqa"])
    torch.manual_seed(3)
    with pytest.warns(StartWarning):
        attach(model, BERT, ["vqa", "gqa"], check={**batch, "task_ids": torch.tensor([1, 0, 1, -1])})
    assert model.weft.routing is None
    assert [module.training for name, module in model.named_modules() if not name.startswith("weft")] == modes
    for (key, slot, value), (_, _, expected) in zip(model.weft.slots(), plain.weft.slots(), strict=True):
        assert torch.equal(value, expected), (key, slot)


def test_a_failed_check_leaves_the_model_as_it_was():
    model, batch = tiny_backbone("bart")
    kind, names = type(model), list(model.state_dict())
    with pytest.raises(RoutingError):
        attach(
            model,
            {**BERT, "sharing": "multiple"},
            ["vqa", "gqa"],
            check={**batch, "task_ids": torch.tensor([0, 1, 0])},
        )
    with pytest.raises(StartWarning, match="must start as its backbone"):  # warnings are errors here
        attach(model, BERT, check=batch)
    with torch.device("meta"):
        empty = kind(model.config)
    meta = {name: value.to("meta") for name, value in batch.items()}
    with pytest.raises(AttachError, match="`check` must be left out on the meta device"):
        attach(empty, BERT, check=meta)
    for one in (model, empty):
        assert (type(one), list(one.state_dict())) == (kind, names)


@pytest.mark.parametrize(
    ("name", "method", "start"),
    [("bart", "bottleneck", "bert"), ("clip", "mma", "repo")],
    ids=["recorded", "of a time without the field"],
)
def test_a_checkpoint_keeps_the_start_it_was_made_with(name, method, start, tmp_path):
    folder = shutil.copytree(CHECKPOINTS / f"{name}-{method}", tmp_path / "checkpoint")
    words = json.loads((folder / "weft_config.json").read_text())
    assert words["method"][0].get("init") in (start, None)
    model, batch = tiny_backbone(name)
    load_adapter(model, folder, check_weights=False)
    assert model.weft.plan.configs[0].init == start
    model.add_task("new")
    with torch.no_grad(), model.route(task="new"):
        found = outputs(model, batch)
    with torch.no_grad(), model.disable_adapter():
        assert not torch.equal(found, outputs(model, batch))
    model.save_pretrained(tmp_path / "again")
    assert json.loads((tmp_path / "again" / "weft_config.json").read_text())["method"][0]["init"] == start

"""What fails half-way leaves the model as it was, wherever it fails."""

import inspect
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.core import attach, detach, errors, load_adapter, merge
from weft.core.adapted.task_arithmetic import combine_tasks
from weft.core.backbone.fingerprint import weights_digest
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import export_peft, import_peft
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs

CORE = Path(errors.__file__).parent
TASKS = ["vqa", "gqa"]
BOTTLENECK = {
    "method": "bottleneck",
    "init": "bert",
    "bottleneck_size": 4,
    "sharing": "half",
    "layers": [0],
    "stacks": ["encoder"],
}
FULL = {**BOTTLENECK, "train_full": ["norms"]}
LORA = {"method": "lora", "rank": 2, "layers": [0], "stacks": ["encoder"], "sharing": "multiple"}
PREFIX = {"method": "prefix", "length": 2, "layers": [0], "stacks": ["encoder"]}


class InjectedError(Exception):
    """Raised where nobody expects it."""


class Calls:
    """Counts calls of functions of weft.core, and raises at one of them."""

    def __init__(self, at=None):
        self.count = 0
        self.at = at

    def __call__(self, frame, event, argument):
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(CORE)):
            return
        # A generator that is closed early is called, too, where nothing can be raised.
        if Path(code.co_filename).name == "all_or_nothing.py" or code.co_flags & inspect.CO_GENERATOR:
            return
        self.count += 1
        if self.count == self.at:
            raise InjectedError(f"{code.co_filename}:{code.co_name}")

    def during(self, action):
        sys.setprofile(self)
        try:
            action()
        finally:
            sys.setprofile(None)


def state(model, batch):
    """Everything that must be as before."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    store = getattr(model, "weft", None)
    with torch.no_grad():
        if store is None:
            results = [outputs(model, batch)]
        else:
            results = []
            for task in store.tasks:
                with model.route(task=task):
                    results.append(outputs(model, batch))
    return {
        "classes": {name: type(module) for name, module in model.named_modules()},
        "attributes": {name: set(module.__dict__) for name, module in model.named_modules()},
        "objects": {
            name: id(value) for name, value in tensors.items() if name not in ("weft.presence.seen",)
        },
        "values": {name: value.detach().clone() for name, value in tensors.items()},
        "trained": {name: value.requires_grad for name, value in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "tasks": None
        if store is None
        else (store.tasks, store.plan.tasks, store.plan.shapes(), store.enabled),
        "outputs": results,
    }


def assert_same(before, after):
    for part in ("classes", "attributes", "objects", "trained", "modes", "tasks"):
        assert after[part] == before[part], part
    assert all(torch.equal(value, before["values"][name]) for name, value in after["values"].items())
    assert all(
        torch.equal(one, other) for one, other in zip(before["outputs"], after["outputs"], strict=True)
    )


def plain(method):
    model, batch = tiny_backbone("bart")
    weights_digest(model)  # is remembered, and then takes fewer steps
    return model, batch


def with_units(method):
    model, batch = adapted(method, "bart", TASKS)
    weights_digest(model)
    return model, batch


def saved(method, tmp_path):
    model, _ = adapted(method, "bart", [*TASKS, "nlvr"])
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(0.1)
    model.save_pretrained(tmp_path)


def exported(method, tmp_path):
    export_peft(adapted(method, "bart", None)[0], tmp_path)


# Name to: the method, the model before, what prepares the folder, and the change.
CHANGES = {
    "attach": (FULL, plain, None, lambda model, _: attach(model, FULL, TASKS)),
    "attach two": (FULL, plain, None, lambda model, _: attach(model, [PREFIX, LORA], TASKS)),
    "detach": (FULL, with_units, None, lambda model, _: detach(model)),
    "add a task": (LORA, with_units, None, lambda model, _: model.add_task("nlvr")),
    "add a task like another": (LORA, with_units, None, lambda model, _: model.add_task("nlvr", like="vqa")),
    "remove a task": (LORA, with_units, None, lambda model, _: model.remove_task("vqa")),
    "combine tasks": (
        LORA,
        with_units,
        None,
        lambda model, _: combine_tasks(model, "both", {"vqa": 1, "gqa": 1}),
    ),
    "merge": (LORA, with_units, None, lambda model, _: merge(model, task="gqa")),
    "load into a plain model": (FULL, plain, saved, lambda model, folder: load_adapter(model, folder)),
    "load into an adapted model": (
        FULL,
        with_units,
        saved,
        lambda model, folder: load_adapter(model, folder, tasks=["gqa", "nlvr"], check_weights=False),
    ),
    "import from PEFT": (
        {**LORA, "train_full": ["norms"]},
        plain,
        exported,
        lambda model, folder: import_peft(model, folder),
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_that_raises_at_any_step_leaves_the_model_as_it_was(name, tmp_path):
    method, make, prepare, change = CHANGES[name]
    if prepare is not None:
        prepare(method, tmp_path)
    change(make(method)[0], tmp_path)  # what is imported and cached once is no step
    whole = Calls()
    model, _ = make(method)
    whole.during(lambda: change(model, tmp_path))
    model, batch = make(method)
    before = state(model, batch)
    # Every step of short changes; of long ones evenly spaced steps, and the first and last ones.
    stride = max(1, whole.count // 25)
    steps = {*range(1, whole.count + 1, stride), *range(max(1, whole.count - 5), whole.count + 1)}
    for step in sorted(steps):
        with pytest.raises(InjectedError):
            Calls(step).during(lambda: change(model, tmp_path))
        assert_same(before, state(model, batch))
    if make is with_units:
        detach(model)
    plain_again, _ = tiny_backbone("bart")
    assert [type(one) for one in model.modules()] == [type(one) for one in plain_again.modules()]
    with torch.no_grad():
        assert torch.equal(outputs(model, batch), outputs(plain_again, batch))


def test_a_composition_that_cannot_be_attached_leaves_the_backbone():
    model, batch = tiny_backbone("bart")
    before = state(model, batch)
    with pytest.raises(Exception, match=r"."):
        attach(
            model,
            [
                {"method": "bottleneck", "init": "bert", "bottleneck_size": 4},
                {"method": "aim", "towers": ["text"]},
            ],
        )
    assert_same(before, state(model, batch))
    detach(attach(model, BOTTLENECK))
    assert_same(before, state(model, batch))


def test_a_failed_load_neither_adds_a_task_nor_stays_attached(tmp_path):
    saved(FULL, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    tensors = load_file(weights)
    tensors["bottleneck.text.encoder.0.ffn.down.weight.nlvr"][0, 0] = float("nan")
    save_file(tensors, weights)
    for make in (plain, with_units):
        model, batch = make(FULL)
        before = state(model, batch)
        with pytest.raises(CheckpointError, match=r"down.weight.nlvr is not finite in 1 of 64 places"):
            load_adapter(model, tmp_path, tasks=["nlvr"])
        assert_same(before, state(model, batch))


def test_handles_of_hooks_still_remove_them():
    model, batch = tiny_backbone("bart")
    calls = []
    layer = model.model.encoder.layers[0].fc2
    handle = layer.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(InjectedError):
        Calls(60).during(lambda: attach(model, BOTTLENECK))
    handle.remove()
    outputs(model, batch)
    assert not calls

"""The whole mapping of transformers from images and text to text: each type attaches or says what is missing."""

from functools import cache, partial

import pytest
import torch

from weft.core import attach, detach, plan
from weft.core.backbone.resolving import resolve
from weft.core.backbone.sites import SUBLAYERS
from weft.core.errors import BackboneError
from weft.core.testing.layer_passes import WatchedLayers
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.whole_mapping import mapped_types, shallow_model, tiny_model
from weft.core.testing.wiring_faults import faults

FLOOR = 40
# One of each kind of layer: norms before, norms around, parallel blocks, experts, linear attention, convolutions.
KINDS = (
    "aya_vision",
    "cohere2_vision",
    "gemma4_unified",
    "glm4v",
    "lfm2_vl",
    "llama4",
    "qwen3_5_moe",
    "qwen3_vl_moe",
)
# Sub-layers beside one another, outputs that are multiplied, features added behind both: sums of another kind.
OTHER_SUMS = {"aya_vision", "cohere2_vision", "gemma4", "granite_docling"}
METHODS = [
    {"method": "bottleneck", "bottleneck_size": 4, "init": "zero"},
    {"method": "bottleneck", "bottleneck_size": 4, "init": "zero", "placement": "parallel"},
    {"method": "lora", "rank": 2, "linears": ["output"]},
]
TASKS = ["a", "b"]


@cache
def outcome(model_type):
    """How many sites a type has, or why none."""
    try:
        model = shallow_model(model_type)
    except (
        Exception
    ) as error:  # its default config, or what is installed, makes no model: nothing to attach to
        return f"transformers does not build it: {error}"
    try:
        return len(plan(model, METHODS[0], TASKS).sites)
    except BackboneError as error:
        return str(error)


@pytest.mark.parametrize("model_type", mapped_types())
def test_a_type_attaches_or_says_what_is_missing(model_type):
    found = outcome(model_type)
    assert (
        found
        if isinstance(found, int)
        else any(words in found for words in ("does not build", "Nor can its structure be read: "))
    )


def test_at_least_forty_types_attach():
    refused = {name: outcome(name) for name in mapped_types() if isinstance(outcome(name), str)}
    attached = len(mapped_types()) - len(refused)
    assert attached >= FLOOR, "\n".join(f"{name}: {reason}" for name, reason in refused.items())


def text_batch():
    torch.manual_seed(1)
    ids = torch.randint(5, 150, (2, 6))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@cache
def written(model_type):
    """What a tiny model writes for text alone; or why it cannot."""
    try:
        with torch.no_grad():
            return tiny_model(model_type)(**text_batch()).logits
    except Exception as error:  # of transformers alone: weft is not in it
        return f"{type(error).__name__}: {error}"


def zeroed(module, args, output):
    return (
        (torch.zeros_like(output[0]), *output[1:]) if isinstance(output, tuple) else torch.zeros_like(output)
    )


def silenced(model, sites):
    """Paths of the text layers that change what they read though their sub-layers give nothing."""
    changed = []

    def compare(module, args, kwargs, output, path):
        read = args[0] if args else kwargs["hidden_states"]
        written = output[0] if isinstance(output, tuple) else output
        if not torch.equal(read, written):
            changed.append(path)

    hooks = [
        model.get_submodule(site.path).register_forward_hook(zeroed)
        for site in sites.sites
        if site.tower == "text" and site.block in SUBLAYERS and not site.role
    ]
    layers = [path for path, front in sites.layers.items() if front.startswith("text")]
    hooks += [
        model.get_submodule(path).register_forward_hook(partial(compare, path=path), with_kwargs=True)
        for path in layers
    ]
    with torch.no_grad():
        model(**text_batch())
    for hook in hooks:
        hook.remove()
    return changed


def check_text(model_type):
    model, batch, expected = tiny_model(model_type), text_batch(), written(model_type)
    sites = resolve(model)
    if model.config.get_text_config().model_type in sites.read_by_structure:
        assert not silenced(model, sites)
    if model_type not in OTHER_SUMS:
        assert not faults(WatchedLayers(model, batch, sites), sites)
    for method in METHODS:
        attach(model, {**method, "towers": ["text"], "sharing": "multiple"}, TASKS)
        with model.route(task="a"), torch.no_grad():
            assert torch.equal(model(**batch).logits, expected)
        torch.manual_seed(2)
        move_slots(model, 0.2)
        with model.route(tasks=TASKS):
            mixed = model(**batch).logits
        mixed.square().sum().backward()
        idle = [key for key, slot, value in model.weft.slots() if value.grad is None or not value.grad.any()]
        assert not idle
        for row, task in enumerate(TASKS):
            with model.route(task=task), torch.no_grad():
                alone = model(**{name: value[row : row + 1] for name, value in batch.items()}).logits[0]
            scale = float(mixed.detach().abs().max())
            torch.testing.assert_close(mixed[row], alone, atol=1e-5 * scale, rtol=1e-5)
        detach(model)


def text_types():
    return [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in mapped_types()]


@pytest.mark.parametrize("model_type", text_types())
def test_a_mixed_batch_of_text_is_its_rows_alone_and_starts_as_the_backbone(model_type):
    if isinstance(outcome(model_type), str):
        pytest.skip(f"it does not attach: {outcome(model_type)}")
    if isinstance(written(model_type), str):
        pytest.skip(f"its tiny model reads no text alone: {written(model_type)}")
    check_text(model_type)


@pytest.mark.slow
def test_most_types_that_attach_are_run():
    left = {name: written(name) for name in mapped_types() if isinstance(outcome(name), int)}
    run = [name for name, found in left.items() if not isinstance(found, str)]
    assert len(run) >= FLOOR, "\n".join(f"{name}: {found}" for name, found in left.items() if name not in run)

"""Every model type that a family declares is adapted on a tiny model of its real class."""

import pytest
import torch
import transformers

from weft.core import attach, detach, load_adapter
from weft.core.backbone.family import families
from weft.core.backbone.resolving import resolve
from weft.core.testing import BACKBONES
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.unit_contract import move_slots
from weft.core.testing.vision_language import CASES

METHODS = [
    {"method": "bottleneck", "bottleneck_size": 4, "init": "zero"},
    {"method": "lora", "rank": 2},
    {"method": "ia3"},
]
# These have tests of their own: a tower of VL-BART, EfficientNet, open_clip's models and composites of this package.
ELSEWHERE = {"resnet", "efficientnet", "open_clip.model.CLIP", "open_clip.model.CustomTextCLIP"}


def case(name):
    torch.manual_seed(0)
    model, batch = SIBLINGS[name]()
    return model.eval().requires_grad_(False), batch


@pytest.mark.parametrize("name", SIBLINGS)
def test_it_starts_as_the_backbone_and_every_slot_counts(name, tmp_path):
    model, batch = case(name)
    expected = model(**batch).logits
    towers = list(resolve(model).towers)
    for number, method in enumerate(METHODS):
        attach(model, {**method, "towers": towers, "sharing": "multiple"}, ["a", "b"])
        model.set_task("b")
        assert torch.equal(model(**batch).logits, expected)
        move_slots(model, 0.1)
        found = model(**batch).logits
        found.square().sum().backward()
        unused = {key for key, slot, value in model.weft.slots() if slot == "b" and value.grad is None}
        # LLaVA-NeXT takes the features of the last layer but one.
        assert all(key.split(".")[1:3] == ["vision", "1"] for key in unused), unused
        assert not unused or name.startswith("llava_next")
        assert not torch.allclose(found, expected)
        model.save_pretrained(tmp_path / str(number))
        other, _ = case(name)
        load_adapter(other, tmp_path / str(number)).set_task("b")
        assert torch.equal(other(**batch).logits, found)
        detach(model)


def test_every_declared_type_has_a_tiny_model():
    seen = set()
    for build in {**BACKBONES, **CASES, **SIBLINGS}.values():
        for module in build()[0].modules():
            seen.add(getattr(getattr(module, "config", None), "model_type", None))
    # Those that are read by their structure are built from the type's own default config; see test_owners_by_structure.
    known = {*transformers.CONFIG_MAPPING, *ELSEWHERE} - {
        name for name in families() if families()[name].by_structure
    }
    left = {
        name for name in families() if name not in seen and name in known and not name.startswith("weft_")
    }
    assert left == ELSEWHERE

"""What our own families claim of their sites is what passes show; any one wrong claim is found."""

from typing import ClassVar

import pytest
import torch

from weft.core.testing.backbones import BACKBONES
from weft.core.testing.family_contract import FamilyContract
from weft.core.testing.original_names import tiny_efficientnet
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.vision_language import CASES


def efficientnet():
    """Blocks with and without a stream, whose norms are far from the identity, as those of a fresh model are not."""
    model = tiny_efficientnet()
    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.running_var.uniform_(1e-4, 1e-3)
    return model, {"pixel_values": torch.randn(2, 3, 32, 48)}


class TestFamilies(FamilyContract):
    models: ClassVar = {**BACKBONES, **CASES, **SIBLINGS, "efficientnet": efficientnet}
    mutated = ("bert", "siglip", "llama", "gemma3", "t5", "bart", "blip_retrieval", "clip", "efficientnet")
    # Gemma 4 adds features of each token behind both sub-layers, which are no site; the feed-forward block that is a
    # site of InstructBLIP's Q-Former reads its queries alone, and another one the text.
    beyond = frozenset({"gemma4", "instructblip"})


@pytest.mark.slow
class TestEveryFamily(FamilyContract):
    models: ClassVar = {name: build for name, build in TestFamilies.models.items() if name != "gemma4"}
    beyond = TestFamilies.beyond

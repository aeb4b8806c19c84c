"""What our own families claim of their sites is what passes show; any one wrong claim is found."""

from typing import ClassVar

import pytest

from weft.core.testing.backbones import BACKBONES
from weft.core.testing.family_contract import FamilyContract
from weft.core.testing.sibling_types import SIBLINGS
from weft.core.testing.vision_language import CASES


class TestFamilies(FamilyContract):
    models: ClassVar = {**BACKBONES, **CASES, **SIBLINGS}
    mutated = ("bert", "siglip", "llama", "gemma3", "t5", "bart", "blip_retrieval", "clip")
    # Gemma 4 adds features of each token behind both sub-layers, which are no site; the feed-forward block that is a
    # site of InstructBLIP's Q-Former reads its queries alone, and another one the text.
    beyond = frozenset({"gemma4", "instructblip"})


@pytest.mark.slow
class TestEveryFamily(FamilyContract):
    models: ClassVar = {name: build for name, build in TestFamilies.models.items() if name != "gemma4"}
    beyond = TestFamilies.beyond

"""The contract of readers over tiny models of fifteen kinds, each with its real processor."""

from __future__ import annotations

from typing import Any

import pytest

from weft.core import plan
from weft.core.errors import BackboneError
from weft.core.testing.processed import TINY, tiny
from weft.eval.testing import ReaderContract, Subject
from weft.eval.testing.own_subjects import OWN, own_subject
from weft.eval.testing.tiny_subjects import WITHOUT_FAMILY, tiny_subject


class TestReaders(ReaderContract):
    @pytest.fixture(params=TINY)
    def subject(self, request: Any) -> Subject:
        return tiny_subject(request.param)


class TestOwnReaders(ReaderContract):
    @pytest.fixture(params=OWN)
    def subject(self, request: Any) -> Subject:
        return own_subject(request.param)


@pytest.mark.parametrize("name", WITHOUT_FAMILY)
def test_a_model_without_a_family_is_read_but_not_adapted(name: str) -> None:
    # Once a family knows it, take it out of WITHOUT_FAMILY: its mixed batches are then checked.
    with pytest.raises(BackboneError):
        plan(tiny(name).model, {"method": "lora", "rank": 2}, ["a"])

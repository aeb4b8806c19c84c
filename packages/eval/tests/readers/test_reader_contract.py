"""The contract of readers over tiny models of fifteen kinds, each with its real processor."""

from __future__ import annotations

from typing import Any

import pytest

from weft.core.testing.processed import TINY
from weft.eval.testing import ReaderContract, Subject
from weft.eval.testing.own_subjects import OWN, own_subject
from weft.eval.testing.tiny_subjects import tiny_subject


class TestReaders(ReaderContract):
    @pytest.fixture(params=TINY)
    def subject(self, request: Any) -> Subject:
        return tiny_subject(request.param)


class TestOwnReaders(ReaderContract):
    @pytest.fixture(params=OWN)
    def subject(self, request: Any) -> Subject:
        return own_subject(request.param)

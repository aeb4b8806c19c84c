"""Every file that fuzzing starts from, or once raised something, is read or refused with an error of weft."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fuzz import run, trees

from weft.data import list_datasets

FOLDER = Path(__file__).parent / "fuzz"
LARGEST = 64 * 1024  # bytes of all that is committed


@pytest.mark.parametrize("target", sorted(run.TARGETS))
def test_the_corpus_raises_nothing_but_errors_of_weft(target: str) -> None:
    for data in run.corpus_of(target):
        run.feed(target, data)


def test_every_target_has_seeds_and_the_corpus_is_small() -> None:
    assert all(run.seeds(target) for target in run.TARGETS)
    kept = [path for path in (FOLDER / "corpus").rglob("*") if path.is_file()]
    assert {path.parent.name for path in kept} <= set(run.TARGETS)
    assert sum(path.stat().st_size for path in kept) <= LARGEST


def test_an_exception_that_is_not_of_weft_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(data: bytes, folder: Path) -> None:
        raise KeyError("x")

    monkeypatch.setitem(run.TARGETS, "images", fails)
    with pytest.raises(KeyError):
        run.feed("images", b"")


def test_every_data_set_that_has_a_miniature_is_fuzzed() -> None:
    fuzzed = {tree.about["name"] for tree in trees.data_sets().values()}
    assert set(list_datasets()) - fuzzed <= {"hub", "scenes", "table", "webdataset"}

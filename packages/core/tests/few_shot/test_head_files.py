"""Heads on disk: strict, without pickle, and never stale."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.core.errors import CheckpointError, FewShotError
from weft.core.few_shot import Provenance, TipAdapter, TipAdapterF, ZeroShotHead, load_head
from weft.core.few_shot.files import class_names_of

MADE = Provenance(encoder="clip-a", preprocessing="p224", split="s1")


@pytest.fixture
def saved(make_task, tmp_path: Path) -> Path:
    weights, features, labels, *_ = make_task()
    head = TipAdapter(weights).fit(features, labels)
    return head.save(tmp_path / "head", provenance=MADE, class_names=list("abcdef"))


def test_a_head_comes_back_with_its_choices(make_task, tmp_path: Path) -> None:
    weights, features, labels, queries, truth = make_task()
    head = TipAdapterF(weights).fit(features, labels, (queries, truth))
    head.calibrate(queries, truth)
    head.save(tmp_path)
    again = load_head(tmp_path)
    assert type(again) is TipAdapterF
    assert torch.equal(again.logits(queries), head.logits(queries))
    assert torch.equal(again.probabilities(queries), head.probabilities(queries))
    assert (again.selected, again.selected_on) == (head.selected, "validation")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]


def test_class_names_may_repeat_and_keep_their_order(make_task, tmp_path: Path) -> None:
    weights, *_ = make_task()
    names = ["missile", "missile", "b", "c", "d", "e"]
    ZeroShotHead(weights).save(tmp_path, class_names=names)
    assert class_names_of(tmp_path) == names
    with pytest.raises(FewShotError, match=r"one name per class \(6\), but holds 2"):
        ZeroShotHead(weights).save(tmp_path, class_names=["a", "b"])


def test_what_it_was_made_from_is_checked(saved: Path) -> None:
    assert isinstance(TipAdapter.load(saved, provenance=MADE), TipAdapter)
    other = Provenance(encoder="clip-b", preprocessing="p224", split="s2")
    with pytest.raises(CheckpointError, match="is stale") as caught:
        load_head(saved, provenance=other)
    assert "encoder: made with 'clip-a', to be used with 'clip-b'" in str(caught.value)
    assert "split" in str(caught.value)
    assert "preprocessing" not in str(caught.value)
    with pytest.raises(FewShotError, match=r"must hold a TipAdapterF, but .* holds a TipAdapter"):
        TipAdapterF.load(saved)


def test_a_head_that_does_not_say_what_it_was_made_from_is_refused_where_it_matters(
    make_task, tmp_path
) -> None:
    ZeroShotHead(make_task()[0]).save(tmp_path)
    load_head(tmp_path)
    with pytest.raises(CheckpointError, match="was saved without `provenance`"):
        load_head(tmp_path, provenance=MADE)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], **changes: object) -> None:
    import hashlib

    save_file(tensors, str(folder / "head.safetensors"))
    values = json.loads((folder / "head.json").read_text())
    values["sha256"] = hashlib.sha256((folder / "head.safetensors").read_bytes()).hexdigest()
    (folder / "head.json").write_text(json.dumps({**values, **changes}))


def test_every_fault_of_the_tensors_is_listed(saved: Path) -> None:
    tensors = load_file(saved / "head.safetensors")
    tensors["cache.keys"] = tensors["cache.keys"][1:].contiguous()
    tensors["cache.labels"] = tensors["cache.labels"] + 3
    tensors["more"] = torch.zeros(1)
    del tensors["cache.origin"]
    rewrite(saved, tensors)
    with pytest.raises(CheckpointError) as caught:
        load_head(saved)
    for fault in (
        "missing: cache.origin",
        "unexpected: more",
        "cache.keys: shape (23, 24) instead of (24, 24)",
    ):
        assert fault in str(caught.value)
    assert "cache.labels: out of range at 12" in str(caught.value)


def test_damaged_files_are_refused(saved: Path) -> None:
    tensors = load_file(saved / "head.safetensors")
    rewrite(saved, tensors | {"cache.keys": tensors["cache.keys"] * float("nan")})
    with pytest.raises(CheckpointError, match=r"cache.keys: not finite in 576 places"):
        load_head(saved)
    rewrite(saved, tensors, format=9)
    with pytest.raises(CheckpointError, match="must be of format 1 with all its keys, but is of format 9"):
        load_head(saved)
    (saved / "head.safetensors").write_bytes(b"cut")
    values = json.loads((saved / "head.json").read_text())
    (saved / "head.json").write_text(json.dumps({**values, "format": 1}))
    with pytest.raises(CheckpointError, match="its hash differs"):
        load_head(saved)
    (saved / "head.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"must hold head.safetensors"):
        load_head(saved)
    (saved / "head.json").write_text("{")
    with pytest.raises(
        CheckpointError, match=r"`folder` must hold whole files, but .*head\.json is not JSON"
    ):
        load_head(saved)
    with pytest.raises(CheckpointError, match=r"must hold head.json, but .* does not"):
        load_head(saved / "nowhere")

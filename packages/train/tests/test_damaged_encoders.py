"""Encoders of somebody else: files that are damaged, or belong to another model, are told before a data set is read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from weft.train.backbones.encoders import load_encoder
from weft.train.backbones.loading import load_backbone
from weft.train.backbones.saved import MINIATURE, plain_model
from weft.train.errors import RunError
from weft.train.recipe.few_shot import EncoderSection
from weft.train.recipe.sections import BackboneSection


def spoil_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"xx")


def spoil_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    values.pop("added_tokens")
    file.write_text(json.dumps(values))


def spoil_unknown_token(folder: Path) -> None:
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    values["model"]["unk_token"] = "<absent>"
    values["model"]["vocab"].pop("a")
    file.write_text(json.dumps(values))


def spoil_sizes(folder: Path) -> None:
    file = next(path for path in folder.iterdir() if path.name.startswith(("preprocessor", "processor")))
    file.write_text(file.read_text().replace("24", "48"))


def leave_out(folder: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    state = load_file(folder / "model.safetensors")
    state.pop(name)
    save_file(state, folder / "model.safetensors", {"format": "pt"})


def leave_weights_out(folder: Path) -> None:
    leave_out(folder, "visual_projection.weight")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_weights, "cannot be loaded: SafetensorError: .*header"),
        (spoil_tokenizer, "cannot be loaded: .*added_tokens"),
        (spoil_unknown_token, "cannot be loaded: .*Missing .UNK. token"),
        (spoil_sizes, r"cannot be loaded: .*48\*48.*24\*24"),
        (
            leave_weights_out,
            "hold every weight of its model, but .* lacks 1 of CLIPModel, such as visual_projection.weight",
        ),
    ],
    ids=["weights cut", "tokenizer without tokens", "unknown token", "other size", "a weight left out"],
)
def test_a_saved_encoder_whose_files_do_not_belong_together_is_refused(
    clip: str, tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(clip, folder)
    spoil(folder)
    with pytest.raises(RunError, match=rf"`encoder.name` must .*{message}"):
        load_encoder(EncoderSection(name=str(folder)))


def test_a_backbone_that_lacks_weights_is_refused_unless_they_are_to_be_drawn(tmp_path: Path) -> None:
    folder, absent = tmp_path / "spoilt", "language_model.model.encoder.layers.0.fc1.weight"
    shutil.copytree(MINIATURE, folder)
    leave_out(folder, absent)
    rule = f"must hold every weight of its model, but .* lacks 1 of VisualSeq2Seq, such as {absent}"
    with pytest.raises(RunError, match=rf"`backbone.name` {rule}.*backbone.draw_absent_weights=true"):
        load_backbone(BackboneSection(name=str(folder)))
    with pytest.raises(RunError, match=rf"`--backbone` {rule}.*names\."):
        plain_model(str(folder))
    load_backbone(BackboneSection(name=str(folder), draw_absent_weights=True))


def test_texts_about_classes_may_not_be_nested_without_end(tmp_path: Path) -> None:
    from weft.train.runs.few_shot.draws import read_class_texts

    (tmp_path / "texts.json").write_text("[" * 100_000)
    with pytest.raises(RunError, match=r"`class_texts` must be a JSON file, but .* cannot be read"):
        read_class_texts(str(tmp_path / "texts.json"))

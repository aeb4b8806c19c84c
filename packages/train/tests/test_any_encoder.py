"""Few-shot recipes on encoders of every library, and what is said of those that cannot be one."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from PIL import Image
from torch.nn import functional

from weft.core import attach
from weft.core.composites import BlipRetrieval, BlipRetrievalConfig
from weft.core.testing.original_names import original_blip
from weft.core.testing.processed import tiny
from weft.train.backbones.encoders import load_encoder, width_of
from weft.train.cli.app import main
from weft.train.errors import RecipeError, RunError
from weft.train.recipe.few_shot import EncoderSection, FewShotRecipe
from weft.train.recipe.loading import load_any
from weft.train.runs.few_shot.plan import plan_few_shot
from weft.train.runs.few_shot.run import execute_few_shot
from weft.train.testing.few_shot_sets import few_shot_recipe

COLOURS = {"crimson": (200, 20, 40), "navy": (20, 30, 120)}
SIZE = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**SIZE, "image_size": 24, "patch_size": 8, "initializer_range": 0.02}
TEXTS = {"crimson": ["a crimson x", "crimson ."], "navy": ["navy x of navy"]}


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for split, count in (("train", 3), ("validation", 2), ("test", 3)):
        for name, colour in COLOURS.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                shade = tuple(value + 9 * number for value in colour)
                Image.new("RGB", (20, 14), shade).save(root / split / name / f"{number}.png")
    return root


@pytest.fixture
def values(clip: str, pictures: Path, tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "any",
        "encoder": {"name": clip},
        "data": {"name": "image_folder", "root": str(pictures), "validation": "validation"},
        "heads": [
            {"method": "zero_shot"},
            {"method": "tip_adapter", "search_steps": [5, 3]},
            {"method": "coop", "context_tokens": 2, "epochs": 1},
        ],
        "shots": [2],
        "seeds": [1],
        "views": {"count": 1, "augment": False},
        "tracking": {"enabled": False},
        "output": str(tmp_path / "runs"),
        "threads": 1,
    }


def run(values: dict[str, Any], **changes: Any) -> Any:
    return execute_few_shot(few_shot_recipe(values, **changes))


def beside(clip: str, folder: Path) -> Path:
    """A folder with the tokenizer and the image processor of the tiny CLIP."""
    folder.mkdir()
    for path in Path(clip).iterdir():
        if path.name.startswith(("token", "special", "preprocessor", "processor")):
            shutil.copy(path, folder)
    return folder


def words(clip: str) -> int:
    return len(transformers.AutoTokenizer.from_pretrained(clip))


def siglip(clip: str, folder: Path) -> dict[str, Any]:
    text = {**SIZE, "vocab_size": words(clip), "max_position_embeddings": 12, "projection_size": 16}
    transformers.SiglipModel(
        transformers.SiglipConfig(text_config=text, vision_config=VISION)
    ).save_pretrained(beside(clip, folder))
    return {"name": str(folder)}


def blip_config(clip: str, kind: Any = transformers.BlipConfig) -> Any:
    text = {**SIZE, "vocab_size": words(clip), "max_position_embeddings": 24, "encoder_hidden_size": 16}
    extra = {"encode_token_id": 3} if kind is BlipRetrievalConfig else {}
    return kind(text_config=text, vision_config=VISION, image_text_hidden_size=12, **extra)


def blip(clip: str, folder: Path) -> dict[str, Any]:
    own = BlipRetrieval(blip_config(clip, BlipRetrievalConfig))
    own.save_pretrained(beside(clip, folder))
    return {"library": "weft", "name": str(folder)}


@pytest.fixture(params=[siglip, blip], ids=["siglip", "blip"])
def other(request: pytest.FixtureRequest, clip: str, tmp_path: Path) -> dict[str, Any]:
    torch.manual_seed(0)
    section: dict[str, Any] = request.param(clip, tmp_path / "encoder")
    return section


def test_heads_and_prompts_run_on_other_encoders_than_clip(
    values: dict[str, Any], other: dict[str, Any]
) -> None:
    found = run(values, encoder=other)
    assert {cell.head for cell in found.cells} == {"zero_shot", "tip_adapter", "coop"}
    section = EncoderSection(**other)
    encoder, _ = load_encoder(section)
    assert encoder.encode_texts(["a photo"]).shape == (1, width_of(section))


@pytest.fixture
def siglip2(tmp_path: Path) -> dict[str, Any]:
    """SigLIP 2 of any resolution, whose image side reads patches with their mask and shapes."""
    return {"name": str(tiny("siglip2").save(tmp_path / "siglip2"))}


@pytest.mark.parametrize("augment", [False, True], ids=["plain", "views"])
def test_heads_run_on_the_patches_of_siglip2(
    values: dict[str, Any], siglip2: dict[str, Any], augment: bool
) -> None:
    heads = [head for head in values["heads"] if head["method"] != "coop"]
    found = run(values, encoder=siglip2, heads=heads, views={"count": 2, "augment": augment})
    assert {cell.head for cell in found.cells} == {"zero_shot", "tip_adapter"}


def test_pictures_of_any_shape_give_siglip2_the_features_of_its_own_processor(
    siglip2: dict[str, Any],
) -> None:
    encoder, transform = load_encoder(EncoderSection(**siglip2))
    pictures = [Image.new("RGB", size, (9, 90, 200)) for size in ((40, 17), (12, 60))]
    own = tiny("siglip2")
    inputs = own.processor.image_processor(images=pictures, return_tensors="pt")
    with torch.no_grad():
        expected = functional.normalize(own.model.get_image_features(**inputs).pooler_output, dim=-1)
    torch.testing.assert_close(encoder.encode_images(transform.batch(iter(pictures))), expected)


def test_the_scale_of_a_blip_is_one_by_its_temperature(clip: str, tmp_path: Path) -> None:
    encoder, _ = load_encoder(EncoderSection(**blip(clip, tmp_path / "blip")))
    assert encoder.logit_scale == pytest.approx(1 / 0.07)


def test_a_blip_is_read_from_its_original_file(clip: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    section = blip(clip, tmp_path / "blip")
    own = BlipRetrieval(blip_config(clip, BlipRetrievalConfig)).eval()
    file = tmp_path / "blip.pth"
    torch.save({"model": original_blip(own)}, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    encoder, _ = load_encoder(EncoderSection(**section, weights=str(file), sha256=digest))
    pixels = torch.randn(2, 3, 24, 24)
    assert torch.equal(encoder.encode_images(pixels), functional.normalize(own.encode_image(pixels), dim=-1))
    with pytest.raises(RunError, match=r"`encoder.weights` must have the SHA-256 0+, but .* has " + digest):
        load_encoder(EncoderSection(**section, weights=str(file), sha256="0" * 64))
    with pytest.raises(RunError, match=r"`encoder.weights` must be a file, but there is none"):
        load_encoder(EncoderSection(**section, weights=str(tmp_path / "absent.pth")))


def test_texts_about_classes_come_from_a_file_beside_templates_or_alone(
    values: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(TEXTS))
    values["heads"] = [{"method": "zero_shot"}]
    encoder, _ = load_encoder(EncoderSection(**values["encoder"]))
    for templates in ([], ["a photo of a {}."]):
        result = run(values, class_texts=str(file), templates=templates, name=f"texts{len(templates)}")
        from weft.core.few_shot import load_head

        head = load_head(result.folder / "heads" / "zero_shot-K2-seed1")
        expected = encoder.class_weights(list(COLOURS), templates, texts=TEXTS)
        assert torch.allclose(head.class_weights, expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"crimson": ["x"], "navy": ["x"], "teal": ["x"]}', "a class of `class_texts` .* is 'teal'"),
        ('{"crimson": ["x"]}', "`class_texts` must hold .* lacks one about 1: navy"),
        ('["x"]', "`class_texts` must hold names of classes with a list of texts each"),
        (
            '{"crimson": "x", "navy": ["x"]}',
            "`class_texts` must hold names of classes with a list of texts each",
        ),
        ("{", "`class_texts` must be a JSON file, but .* cannot be read"),
    ],
    ids=["unknown class", "class left out", "list", "text", "cut"],
)
def test_texts_that_do_not_fit_the_classes_end_with_one_message_and_code_2(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    file = tmp_path / "texts.json"
    file.write_text(content)
    error = refused({**values, "class_texts": str(file)}, tmp_path, capsys)
    assert_matches(message, error)


def refused(values: dict[str, Any], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `weft train` says of a recipe that it refuses."""
    recipe = folder / "recipe.json.yaml"
    recipe.write_text(json.dumps(values))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.split("\n") if line.startswith("weft: ")]
    assert len(lines) == 1, error
    assert "Traceback" not in error
    return lines[0]


def assert_matches(pattern: str, text: str) -> None:
    assert re.search(pattern, text), text


def test_an_encoder_without_a_text_side_is_refused(
    values: dict[str, Any], clip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = beside(clip, tmp_path / "dino")
    config = transformers.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    error = refused({**values, "encoder": {"name": str(folder)}}, tmp_path, capsys)
    assert_matches("Dinov2Model has neither. Load a CLIP-like model", error)


def test_an_encoder_without_a_scale_asks_for_one(
    values: dict[str, Any],
    clip: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scaleless(section: EncoderSection) -> Any:
        encoder, transform = load_encoder(section)
        encoder.model.logit_scale = None
        return encoder, transform

    monkeypatch.setattr("weft.train.runs.few_shot.bench.load_encoder", scaleless)
    error = refused(values, tmp_path, capsys)
    assert_matches("must have a `logit_scale`.*CLIPModel has none. Give the factor yourself", error)
    given = {**values, "output": str(tmp_path / "given"), "heads": [{"method": "zero_shot"}]}
    assert run(given, encoder={"name": clip, "logit_scale": 25.0}).cells


def test_an_absent_library_is_named_with_what_installs_it(
    values: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    section = {"library": "open_clip", "name": "RN50", "weights": "RN50.pt"}
    error = refused({**values, "encoder": section}, tmp_path, capsys)
    assert_matches("`encoder.library` needs open_clip .*pip install open_clip_torch", error)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (
            {"library": "open_clip", "name": "RN50"},
            "`weights` must name a file for an architecture of open_clip",
        ),
        ({"name": "clip", "weights": "x.pt"}, "`weights` is for the libraries open_clip and weft"),
        ({"name": "clip", "sha256": "0" * 64}, "`sha256` is that of `weights`"),
        (
            {"library": "open_clip", "name": "RN50", "weights": "x", "revision": "1"},
            "`revision` is for models",
        ),
        ("rn51", "`encoder` is no name of one of `encoders`: 'rn51'. Did you mean 'rn50'"),
    ],
    ids=["no weights", "weights", "digest", "revision", "name"],
)
def test_sections_that_mean_nothing_are_refused(values: dict[str, Any], encoder: Any, message: str) -> None:
    named = {"rn50": {"library": "open_clip", "name": "RN50", "weights": "RN50.pt"}}
    with pytest.raises(RecipeError, match=message.replace("?", r"\?")):
        load_any({**values, "encoder": encoder, "encoders": named})


def test_weights_beside_a_model_that_needs_none_are_refused(clip: str, tmp_path: Path) -> None:
    (tmp_path / "x.pth").touch()
    with pytest.raises(RunError, match=r"`encoder.weights` must be left out unless `name` is a BLIP"):
        load_encoder(EncoderSection(library="weft", name=clip, weights=str(tmp_path / "x.pth")))


def test_no_text_about_classes_at_all_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="`templates` must hold a text, or `class_texts` name a file"):
        load_any({**values, "templates": []})


@pytest.mark.parametrize("kind", ["xmadapter", "tip_adapter"])
def test_the_recipes_of_the_papers_have_the_encoder_of_their_tables(kind: str) -> None:
    recipe = load_any(f"{kind}/dtd", ["encoder=rn50"])
    assert isinstance(recipe, FewShotRecipe)
    assert (recipe.encoder.library, recipe.encoder.name, recipe.encoder.width) == ("open_clip", "RN50", 1024)
    assert plan_few_shot(recipe).trainable["tip_adapter_f"][16] == 47 * 16 * 1024
    default = load_any(f"{kind}/dtd")
    assert isinstance(default, FewShotRecipe)
    assert default.encoder.name == "openai/clip-vit-base-patch16"


@pytest.fixture(scope="session")
def residual_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Weights of RN50 drawn here, and open_clip's own model with them."""
    open_clip = pytest.importorskip("open_clip", reason="run `nox -s open_clip`")
    torch.manual_seed(0)
    model = open_clip.create_model("RN50", load_weights=False).eval()
    path = tmp_path_factory.mktemp("rn50") / "RN50.pt"
    torch.save(model.state_dict(), path)
    return path, model


def test_the_residual_network_goes_through_recipe_plan_heads_and_units(
    values: dict[str, Any], residual_network: tuple[Path, Any], pictures: Path
) -> None:
    import open_clip

    path, own = residual_network
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    section = {"library": "open_clip", "name": "RN50", "weights": str(path), "sha256": digest}
    recipe = load_any({**values, "encoder": "rn50", "encoders": {"rn50": section}})
    assert isinstance(recipe, FewShotRecipe)
    assert width_of(recipe.encoder) == 1024
    found = execute_few_shot(recipe)
    assert {cell.head for cell in found.cells} == {"zero_shot", "tip_adapter", "coop"}
    encoder, transform = load_encoder(recipe.encoder)
    picture = Image.open(pictures / "test" / "navy" / "0.png")
    theirs = open_clip.image_transform(224, is_train=False, mean=own.visual.preprocess_cfg["mean"],
                                       std=own.visual.preprocess_cfg["std"])(picture)  # fmt: skip
    pixels = torch.from_numpy(transform(picture))
    assert torch.allclose(pixels, theirs, atol=1e-5)
    texts = ["a photo of a navy.", "a photo of a crimson."]
    for name, value in own.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], value)
    with torch.no_grad():
        images = encoder.model.encode_image(pixels[None], normalize=True)
        said = encoder.model.encode_text(open_clip.get_tokenizer("RN50")(texts), normalize=True)
        other = own.encode_text(open_clip.get_tokenizer("RN50")(texts), normalize=True)
    assert torch.equal(encoder.encode_images(pixels[None]), images)
    assert torch.equal(encoder.encode_texts(texts), said)
    assert torch.allclose(said, other, atol=1e-6)  # matrix products hang on where in memory weights lie
    assert encoder.logit_scale == pytest.approx(float(own.logit_scale.detach().exp()))
    adapted = attach(encoder.model, {"method": "bottleneck", "bottleneck_size": 4, "init": "zero"})
    assert {site.tower for site in adapted.weft.plan.sites} == {"text"}
    assert torch.allclose(encoder.encode_texts(texts), said, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_an_archive_with_a_program_is_read_by_its_digest_alone(
    residual_network: tuple[Path, Any], tmp_path: Path
) -> None:
    """OpenAI's files are TorchScript, whose activation is that of its models."""
    _, own = residual_network
    holder = torch.nn.Module()
    for name, value in own.state_dict().items():
        place = holder
        *parts, last = name.split(".")
        for part in parts:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_buffer(last, value)
    holder.register_buffer("vocab_size", torch.tensor(49408))
    path = tmp_path / "openai.pt"
    torch.jit.script(holder).save(path)
    section = {"library": "open_clip", "name": "RN50", "weights": str(path)}
    with pytest.raises(
        RunError, match=r"`encoder.sha256` must be given for openai.pt, because it is a TorchScript"
    ):
        load_encoder(EncoderSection(**section))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    encoder, _ = load_encoder(EncoderSection(**section, sha256=digest))
    assert type(encoder.model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert torch.equal(encoder.model.visual.conv1.weight, own.visual.conv1.weight)


def test_an_architecture_that_is_none_and_weights_of_another_are_refused(
    residual_network: tuple[Path, Any], tmp_path: Path
) -> None:
    path, _ = residual_network
    with pytest.raises(RunError, match=r"`encoder.name` must be an architecture of open_clip, but is 'RN55'"):
        load_encoder(EncoderSection(library="open_clip", name="RN55", weights=str(path)))
    with pytest.raises(RunError, match=r"`encoder.weights` must fit 'RN101' of open_clip"):
        load_encoder(EncoderSection(library="open_clip", name="RN101", weights=str(path)))

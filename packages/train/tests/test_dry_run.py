"""Runs tried out without weights: over every built-in recipe, on data laid out like the real ones."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from PIL import Image

from weft.data.testing import image_bytes, write_tree
from weft.eval.errors import ScoreInputError
from weft.train.backbones.from_scratch import config_from
from weft.train.cli import main
from weft.train.errors import RunError
from weft.train.recipe.files import BUILT_IN, built_in_recipes
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.recipe.schema import recipe_schema
from weft.train.recipe.training import Recipe
from weft.train.runs.dry_run import DryRun, dry_run
from weft.train.runs.few_shot.dry_run import FewShotDryRun, dry_run_few_shot
from weft.train.testing import (
    write_few_shot_sets,
    write_image_tasks,
    write_retrieval_tasks,
    write_video_tasks,
)

REAL_DATA = {
    "easy-VQA": "vzhou842+easy-VQA",
    "nlvr": "lil-lab+nlvr/nlvr",
    "noto-emoji": "googlefonts+noto-emoji",
    "clothing/images_short80.zip": "alexeygrigorev+clothing-dataset-small/images_short80.zip",
    "fashion-mnist": "zalandoresearch+fashion-mnist",
}
ON_REAL_DATA = ("easy_vqa", "few_shot", "nlvr", "noto_emoji")
COLORS = {"red": (200, 30, 30), "green": (30, 160, 60), "blue": (30, 60, 200)}
ROWS = 840


@pytest.fixture(scope="module")
def pictures() -> list[tuple[Image.Image, str]]:
    return [(Image.new("RGB", (32, 32), color), name) for name, color in COLORS.items()]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, pictures: list[Any]) -> dict[str, Path]:
    """What `$WEFT_DATA` holds for each group of recipes, with as many rows as the largest batch."""
    image, video, retrieval = (tmp_path_factory.mktemp(name) for name in ("image", "video", "retrieval"))
    write_image_tasks(image, pictures, rows=ROWS, width=2048)
    write_video_tasks(video, pictures, rows=60, width=512)
    write_retrieval_tasks(retrieval, pictures, rows=128)
    return {
        "vl_adapter/image": image,
        "vl_pretraining": image,
        "vl_adapter/video": video,
        "uniadapter": retrieval,
    }


@pytest.fixture(scope="module")
def few_shot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few_shot")
    write_few_shot_sets(root)
    return root


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configuration of the model that noto_emoji/retrieval_english saves and other recipes build on."""
    folder = tmp_path_factory.mktemp("earlier")
    backbone = load_recipe("noto_emoji/retrieval_english").backbone
    assert backbone.config is not None
    config_from(backbone.config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def real(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The real files, under the names that recipes give them."""
    root = tmp_path_factory.mktemp("real")
    for name, source in REAL_DATA.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to((realdata / source).resolve())
    return root


def check(name: str, output: Path, changes: list[str]) -> DryRun | FewShotDryRun:
    changes = [f"output={output}", *changes]
    recipe = load_any(name, changes)
    return dry_run(recipe) if isinstance(recipe, Recipe) else dry_run_few_shot(recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", built_in_recipes())
def test_every_built_in_recipe_can_be_tried_out(
    name: str,
    folders: dict[str, Path],
    few_shot: Path,
    request: pytest.FixtureRequest,
    earlier: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = next((path for group, path in folders.items() if name.startswith(group)), few_shot)
    if name.startswith(ON_REAL_DATA):
        data = request.getfixturevalue("real")
    monkeypatch.setenv("WEFT_DATA", str(data))
    changes = [f"backbone.name={earlier}"] if name == "noto_emoji/retrieval_languages" else []
    found = check(name, tmp_path, changes)
    assert found.picture.is_file()
    assert found.texts
    assert "trainable" in str(found) or "trained parameters" in str(found)


@pytest.mark.parametrize(
    "name", ["vl_adapter/image/bart/single_adapter", "vl_adapter/video/t5/multiple_prompts"]
)
def test_a_recipe_of_the_paper_is_tried_out_without_weights(
    name: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEFT_DATA", str(folders[name[:16]]))
    found = check(name, tmp_path, [])
    assert isinstance(found, DryRun)
    assert found.steps > 0
    with Image.open(found.picture) as picture:
        assert picture.size[0] > 400
    shown = str(found)
    assert ("published" in shown) == (load_recipe(name).published is not None)
    assert all(word in shown for word in ("trainable", "steps", "memory", "officially", "first batch", "->"))
    assert {task.partition(":")[0] for task in found.texts} == set(load_recipe(name).tasks)
    assert found.memory.weights == 4 * found.plan.total_parameters
    assert found.memory.total - found.memory.weights == 12 * found.plan.trainable_parameters
    averaged = check(name, tmp_path, ["training.average=0.9"])
    assert isinstance(averaged, DryRun)
    assert averaged.memory.total - found.memory.total == 4 * found.plan.trainable_parameters
    assert "moving average" in str(averaged)


def test_the_rows_of_an_epoch_are_those_of_the_authors(folders, tmp_path, monkeypatch):
    monkeypatch.setenv("WEFT_DATA", str(folders["vl_adapter/image"]))
    found = check("vl_adapter/image/bart/single_adapter", tmp_path, [])
    # 840 questions in batches of 500, 840 + 42 in batches of 833, 840 pairs in batches of 166, 845 captions in 416.
    assert found.steps == 20 * (2 + 2 + 6 + 3)
    assert found.records["gqa"] == {"train": 882, "test": 42}


def test_a_few_shot_recipe_is_tried_out_without_its_encoder(tmp_path, monkeypatch):
    write_few_shot_sets(tmp_path, ["eurosat"])
    monkeypatch.setenv("WEFT_DATA", str(tmp_path))
    found = check("tip_adapter/eurosat", tmp_path, [])
    assert isinstance(found, FewShotDryRun)
    (trial,) = found.trials
    assert (found.draws, found.fits, trial.largest) == (15, 45, 160)
    # Ten views of the largest draw and one test image of each class, 512 numbers of 4 bytes each.
    assert trial.features == 4 * 512 * (10 * 160 + 10)
    assert found.texts[0].startswith("a centered satellite photo of ")
    assert "eurosat: train 200 (officially 13,500)" in str(found)
    assert "encoder openai/clip-vit-base-patch16, not opened here" in str(found)
    with pytest.raises(RunError, match=r"`data\.num_classes` must be that of 'eurosat' \(10\), but is 11"):
        check("tip_adapter/eurosat", tmp_path, ["data.num_classes=11"])


@pytest.mark.parametrize("known", [True, False], ids=["encoder here", "encoder elsewhere"])
def test_the_few_shot_recipe_of_the_documentation_is_tried_out(clip, tmp_path, monkeypatch, capsys, known):
    page = (Path(__file__).parents[3] / "docs" / "few_shot.md").read_text(encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(page.partition("```yaml\n")[2].partition("```")[0])
    images = {f"train/{name}/{k}.png": image_bytes() for name in ("cat", "dog", "fox") for k in range(50)}
    monkeypatch.setenv("WEFT_IMAGES", str(write_tree(tmp_path / "images", images)))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(recipe), "--dry-run", *([f"encoder.name={clip}"] if known else [])])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert ("3 classes, features of width 16" in printed) == known
    assert ("encoder.width is not stated" in printed) != known
    assert "image_folder: train 75, test 75" in printed


def test_a_dry_run_of_the_command_line_writes_a_picture_and_no_run(values, tmp_path, capsys):
    path, picture = tmp_path / "recipe.yaml", tmp_path / "batch.png"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path), "--dry-run", "--picture", str(picture)])
    assert not ended.value.code
    printed = capsys.readouterr().out
    assert "vqa: train 40, test 12" in printed
    assert "'vqa: " in printed
    assert picture.is_file()
    assert not Path(values["output"]).exists()


def test_a_dry_run_finds_what_the_run_would_stop_at(values, folders, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="at most its training records"):
        dry_run(load_recipe(values, ["training.batch_size=64"]))
    data = folders["vl_adapter/image"]
    monkeypatch.setenv("WEFT_DATA", str(data))
    wrong = f"tasks.vqa.data.features={data / 'features' / 'nlvr_rn101'}"
    with pytest.raises(ScoreInputError, match="`features` must hold every image"):
        check("vl_adapter/image/bart/single_adapter", tmp_path, [wrong])


def test_the_schema_takes_every_built_in_file_and_refuses_typos(values):
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for path in sorted(BUILT_IN.rglob("*.yaml")):
        found = validator.iter_errors(yaml.safe_load(path.read_text("utf-8")))
        assert not [error.message for error in found], path
    assert not list(validator.iter_errors(values))
    short = {"method": "bottleneck", "bottleneck_size": 4, "towers": "text", "layers": 1, "sharing": "half"}
    assert not list(validator.iter_errors(values | {"method": short}))
    assert not list(validator.iter_errors(values | {"method": [short, {"method": "lora", "rank": 2}]}))
    for change in (
        {"trainin": {}},
        {"method": {"method": "bottlenek"}},
        {"method": {"method": "bottleneck", "botleneck_size": 4}},
        {"training": {"lerning_rate": 1.0}},
        {"heads": [], "shotz": [1]},
        {"paper_settings": {"training": {"decay_norm": True}}},
        {"tasks": {"vqa": {"metric": "vqaa"}}},
    ):
        assert list(validator.iter_errors(values | change)), change
    for head in ({"method": "tip_adaptor"}, {"method": "tip_adapter", "alfa": 1.0}, {"alpha": 1.0}):
        assert list(validator.iter_errors({"heads": [head]})), head
    assert not list(
        validator.iter_errors({"heads": [{"method": "tip_adapter", "alpha": 1.0, "label": "mine"}]})
    )


def test_the_schema_says_what_each_key_means(capsys):
    with pytest.raises(SystemExit):
        main(["recipes", "schema"])
    printed = json.loads(capsys.readouterr().out)["$defs"]
    for name in ("Recipe", "TrainingSection", "FewShotRecipe"):
        assert all("description" in key for key in printed[name]["properties"].values()), name
    meaning = printed["TrainingSection"]["properties"]["learning_rates"]["description"]
    assert meaning.startswith("Component to its own peak:")
    assert meaning.endswith("lists them.")

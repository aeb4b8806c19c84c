"""Tasks of pictures with classes in ordinary recipes: by the classes' names, and by a head for each task."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from PIL import Image

from weft.core.testing.processed import tiny
from weft.data.media.transforms import CLIP_MEAN, CLIP_STD
from weft.eval.readers.image_processor import square_transform
from weft.train.backbones.loading import reader_of
from weft.train.errors import RecipeError, RunError
from weft.train.preflight.fitness import check_objectives
from weft.train.preflight.learned import load_learnable
from weft.train.processes import Processes
from weft.train.recipe.loading import load_recipe
from weft.train.runs.dry_run import dry_run
from weft.train.runs.exporting.writing import export_run
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing.curves import assert_same_curve, assert_same_weights
from weft.train.testing.own_data import short_run

ODD = ["a_b", "c&d", 'q"e', "{x}", "é", "'s", "1 2"]
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.02}
REAL = Path(os.environ.get("WEFT_REALDATA", Path(__file__).parents[4] / "shared" / "realdata"))
SETS = {
    "clothing": "alexeygrigorev+clothing-dataset-small",
    "easy-VQA": "vzhou842+easy-VQA",
    "fashion-mnist": "zalandoresearch+fashion-mnist",
    "noto-emoji": "googlefonts+noto-emoji",
}
Values = dict[str, Any]


def write_classes(root: Path, names: list[str], train: int, test: dict[str, int] | None = None) -> str:
    """Pictures that are not square, by class, in colours of their own."""
    for split in ("train", "test"):
        for place, name in enumerate(names):
            count = train if split == "train" else (test or {}).get(name, 1)
            for number in range(count):
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                share = 255 * place // max(1, len(names) - 1)
                colour = (share, 255 - share, 10 * number)
                Image.new("RGB", (24 + 7 * number, 18), colour).save(folder / f"{number}.png")
    return str(root)


@pytest.fixture
def values(tmp_path: Path) -> Values:
    """Two classes beside seven with odd names, of which the test lacks one."""
    two = write_classes(tmp_path / "two", ["cold", "warm"], 9)
    odd = write_classes(tmp_path / "odd", ODD, 3, {"é": 0})
    return {
        "name": "one",
        "backbone": {"name": str(tiny("clip").save(tmp_path / "clip"))},
        "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
        "tasks": {
            "two": {"templates": ["a {} colour", "{}"], "data": {"name": "image_folder", "root": two}},
            # The tiny CLIP pools a text at its rarest token and reads from left to right: the name comes first.
            "odd": {
                "templates": ["{} is a photo"],
                "class_names": {"c&d": "c and d"},
                "data": {"name": "image_folder", "root": odd},
            },
        },
        "evaluation": {"batch_size": 4},
        **short_run(tmp_path / "runs", batch_size=6, log_every=1),
    }


def with_heads(values: Values, folder: Path, **heads: int) -> Values:
    config = transformers.Dinov2Config(**SIZES, image_size=28, patch_size=14)
    torch.manual_seed(0)
    transformers.Dinov2Model(config).save_pretrained(folder)
    square_transform(28, CLIP_MEAN, CLIP_STD).processor.save_pretrained(folder)
    backbone = {"name": str(folder), "heads": heads or {"two": 2, "odd": 7}}
    tasks = {
        name: {key: value for key, value in task.items() if key == "data"}
        for name, task in values["tasks"].items()
    }
    return {
        **values,
        "backbone": backbone,
        "tasks": tasks,
        "method": {**values["method"], "train_full": ["heads"]},
    }


@pytest.fixture(params=["names", "heads"])
def either(values: Values, tmp_path: Path, request: pytest.FixtureRequest) -> Values:
    return values if request.param == "names" else with_heads(values, tmp_path / "dinov2")


def test_a_run_scores_top_1_each_class_and_top_5_and_writes_the_class_of_each_picture(either: Values) -> None:
    recipe = load_recipe(either)
    shown = str(dry_run(recipe))
    assert "one of 7 classes" in shown
    result = execute(recipe)
    two, odd = result.reports["two"], result.reports["odd"]
    assert two["metric"] == odd["metric"] == "top1_accuracy"
    assert set(two["scores"]) == {"accuracy", "mean_per_class"}, "two of two classes are always among five"
    assert set(odd["scores"]) == {"accuracy", "mean_per_class", "top5"}
    assert odd["n"] == 6
    assert odd["scores"]["top5"] >= odd["scores"]["accuracy"]
    said = json.loads((result.folder / "predictions" / "odd.json").read_text(encoding="utf-8"))
    assert len(said) == 6
    assert set(said.values()) <= {name.replace("_", " ") for name in ODD}
    again = rescore(result.folder)
    assert again.scores == result.scores


def test_pictures_of_plain_colours_are_learned(either: Values) -> None:
    either["training"] |= {"steps": 40, "learning_rate": 5e-3, "mixing": {"unit": "homogeneous"}}
    either["method"] = {"method": "full"}
    result = execute(load_recipe(either))
    assert result.scores["two"] == 100.0


def test_a_run_that_broke_off_resumes_to_the_same_weights(either: Values, tmp_path: Path) -> None:
    either["training"] |= {"save_every": 2}
    whole = execute(load_recipe(either))
    folder = tmp_path / "runs" / "again"
    recipe = load_recipe({**either, "name": "again"})
    execute(recipe)
    for name in ("adapter", "checkpoints/checkpoint-4"):
        shutil.rmtree(folder / name)
    (folder / "result.json").unlink()
    resumed = execute(recipe, resume=True)
    assert_same_weights(whole.folder, resumed.folder)
    assert whole.scores == resumed.scores


def test_a_method_that_trains_nothing_is_scored_as_it_is(values: Values) -> None:
    values["method"] = {"method": "frozen"}
    result = execute(load_recipe(values))
    assert result.trainable == 0
    assert rescore(result.folder).scores == result.scores


def test_a_run_with_heads_is_exported_as_a_whole_model(values: Values, tmp_path: Path) -> None:
    made = with_heads(values, tmp_path / "dinov2")
    made["method"] = {**made["method"], "sharing": "single"}
    run = execute(load_recipe(made)).folder
    with pytest.raises(RunError, match="`--for` must be 'merged' where the run added heads"):
        export_run(run, tmp_path / "peft", target="peft")
    export_run(run, tmp_path / "whole", target="merged")
    assert json.loads((tmp_path / "whole" / "config.json").read_text())["classes"] == {"two": 2, "odd": 7}


def refused(values: Values, message: str, error: type[Exception] = RunError) -> None:
    with pytest.raises(error, match=message):
        execute(load_recipe(values))
    assert not Path(values["output"]).exists()


def test_an_encoder_of_images_without_heads_is_told_how_to_get_them(values: Values, tmp_path: Path) -> None:
    made = with_heads(values, tmp_path / "dinov2")
    del made["backbone"]["heads"]
    refused(made, "`backbone.heads` must give the number of classes .* is a dinov2, which has no text side")


def test_heads_are_as_many_as_the_tasks_have_classes_and_learn(values: Values, tmp_path: Path) -> None:
    made = with_heads(values, tmp_path / "dinov2", two=2, odd=6)
    refused(made, r"gives 'odd' 6, and it has 7: .*'a b', .* Set backbone.heads.odd=7")
    refused(with_heads(values, tmp_path / "dinov2", two=2), "gives 'odd' none, and it has 7")
    frozen = with_heads(values, tmp_path / "dinov2") | {"method": values["method"]}
    refused(frozen, r"`method` must train the heads .* Add train_full: \[heads\]")
    other = with_heads(values, tmp_path / "dinov2", two=2, odd=7, third=3)
    refused(other, "`backbone.heads` must name tasks .*'third'", RecipeError)
    clip = {**values, "backbone": {**values["backbone"], "heads": {"two": 2, "odd": 7}}}
    refused(clip, "`backbone.heads` is for encoders of images alone, but .* is a clip")


def test_classes_that_cannot_be_told_apart_are_refused(values: Values, tmp_path: Path) -> None:
    one = write_classes(tmp_path / "single", ["alone"], 8)
    values["tasks"]["two"]["data"]["root"] = one
    refused(values, "`tasks.two.data` must have at least two classes to tell apart, but has 'alone'")


def test_names_of_classes_are_known_and_differ(values: Values) -> None:
    odd = values["tasks"]["odd"]
    odd["class_names"] = {"c&d": "é"}
    refused(values, "a name of its own for each class, but the class_names 'é' occur twice")
    odd["class_names"] = {"cd": "c and d"}
    refused(values, "`tasks.odd.class_names` must rename classes of the data, but one is 'cd'")
    odd["class_names"] = {"c&d": " "}
    refused(values, "`tasks.odd` must have a name for each class, but one of the class_names is empty")
    odd["class_names"] = {}
    odd["templates"] = ["a photo"]
    refused(values, "a template must hold {} for the name of the class, but one is 'a photo'", RecipeError)
    del odd["templates"]
    odd["ask"] = "What is it?"
    refused(values, "`tasks.odd.ask` must be left out for records of classes, which `templates` word")


def test_a_test_split_of_other_classes_is_refused(values: Values, tmp_path: Path) -> None:
    values["tasks"]["two"]["data"] |= {
        "options": {"classes": ["cold", "warm"]},
        "test_options": {"classes": ["warm", "cold"]},
    }
    refused(values, "`tasks.two.data.test` must be of the classes that are trained .'cold', 'warm'.")


def test_texts_of_classes_that_a_model_has_no_room_for_are_refused(values: Values) -> None:
    values["tasks"]["two"]["templates"] = ["{} " + "colour " * 40]
    refused(
        values, "`tokens` must be at least the length of every row, but is 32, and two/cold has", Exception
    )


def test_other_models_say_that_they_tell_no_classes_apart(values: Values) -> None:
    values["backbone"] = {"name": "miniature"}
    refused(values, "records of type 'classify' need a model that can tell images apart by classes")


def test_words_for_classes_are_refused_of_other_records(values: Values) -> None:
    asked = {
        **values,
        "backbone": {"name": "miniature"},
        "tasks": {
            "vqa": {
                "class_names": {"a": "b"},
                "data": {"name": "scenes", "options": {"task": "vqa", "size": 20, "num_scenes": 20}},
            }
        },
    }
    refused(asked, "`tasks.vqa.class_names` must be left out for other records than those of classes")


def test_several_processes_may_tell_classes_apart(values: Values) -> None:
    recipe = load_recipe(values)
    check_objectives(load_learnable(recipe), Processes(0, 2, torch.device("cpu")), reader_of(recipe.backbone))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or not torch.distributed.is_gloo_available(), reason="needs gloo")
@pytest.mark.parametrize("unit", ["mixed", "homogeneous"])
def test_two_processes_follow_one(either: Values, unit: str, tmp_path: Path) -> None:
    either["training"] |= {"steps": 8, "save_every": 4, "mixing": {"unit": unit}}
    path, output = tmp_path / "recipe.yaml", Path(either["output"])
    path.write_text(yaml.safe_dump(either, sort_keys=False), encoding="utf-8")
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for words in ([], [*launcher]):
        name = "two" if words else "one"
        program = [sys.executable, *words, "-m", "weft.train", str(path), f"name={name}"]
        done = subprocess.run(program, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    assert_same_curve(output / "one", output / "two", 8)
    assert_same_weights(output / "one", output / "two")
    scores = [json.loads((output / name / "result.json").read_text())["scores"] for name in ("one", "two")]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("name", ["dinov2", "names"])
def test_the_recipes_that_are_shipped_read_four_sets_of_real_images(
    values: Values, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for word, folder in SETS.items():
        if not (REAL / folder).is_dir():
            pytest.skip(f"the real data are not in {REAL}; set WEFT_REALDATA to their folder")
        (tmp_path / word).symlink_to(REAL / folder)
    monkeypatch.setenv("WEFT_DATA", str(tmp_path))
    model = values["backbone"]["name"]
    if name == "dinov2":
        with_heads(values, tmp_path / "dinov2")
        model = tmp_path / "dinov2"
    changes = [f"backbone.name={model}", f"output={tmp_path}", "method.bottleneck_size=2"]
    changes += ["tasks.tones.data.sizes.train=40"]
    found = dry_run(load_recipe(f"classification/{name}", changes))
    assert found.records == {
        "clothing": {"train": 3068, "test": 372},
        "shapes": {"train": 3542, "test": 880},
        "fashion": {"train": 450, "test": 450},
        "tones": {"train": 40, "test": 231},
    }
    assert ("heads" in found.plan.components) == (name == "dinov2")

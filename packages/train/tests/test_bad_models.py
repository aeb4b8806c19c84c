"""What is wrong with a model of one's own, or with one's own data, is said once, before any weight is loaded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedModel
from transformers.utils import is_flash_attn_2_available, is_torchvision_available

from weft.core.testing.processed import tiny
from weft.train.cli import main
from weft.train.testing.own_data import own_task, write_own_data

Recipe = dict[str, Any]
Change = Callable[[Path, Path, Recipe], None]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A model's folder and one of data, both of which a case may spoil."""
    return tiny("llava").save(tmp_path / "model"), write_own_data(tmp_path / "data")


@pytest.fixture
def recipe(folders: tuple[Path, Path], tmp_path: Path) -> Recipe:
    return recipe_of(folders[0], folders[1], tmp_path)


def recipe_of(model: Path, data: Path, place: Path) -> Recipe:
    return {
        "name": "own",
        "backbone": {"name": str(model)},
        "method": {"method": "lora", "rank": 2, "sharing": "multiple"},
        "tasks": {
            "vqa": own_task(data, "image_qa", ask="{question} One word.", metric="exact"),
            "caption": own_task(data, "caption", ask="Describe the picture."),
        },
        "training": {"steps": 2, "batch_size": 4, "learning_rate": 1e-2, "mixing": {"unit": "mixed"}},
        "tracking": {"enabled": False},
        "output": str(place / "runs"),
    }


def refused(recipe: Recipe, place: Path, capsys: pytest.CaptureFixture[str], *command: str) -> str:
    """The one message with which a command ends, by exit code 2, with nothing written."""
    path = place / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([*(command or ("train",)), str(path)])
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    assert said.startswith("weft: ")
    assert said.count("\n") == 1 or "\n  - " in said
    assert not Path(recipe["output"]).exists()
    return said


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    def loaded(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a weight was loaded")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", loaded)


def without_processor(model: Path, data: Path, recipe: Recipe) -> None:
    for file in [*model.glob("*processor*"), *model.glob("token*"), *model.glob("chat_template*")]:
        file.unlink()


def with_tokenizer_alone(model: Path, data: Path, recipe: Recipe) -> None:
    for file in [*model.glob("*processor*"), *model.glob("chat_template*")]:
        file.unlink()


def without_template(model: Path, data: Path, recipe: Recipe) -> None:
    for file in model.glob("chat_template*"):
        file.unlink()


def of_unknown_type(model: Path, data: Path, recipe: Recipe) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"model_type": "llavva"}))


def changed_rows(data: Path, change: Callable[[int, Recipe], Recipe]) -> None:
    rows = [json.loads(line) for line in (data / "vqa.jsonl").read_text().splitlines()]
    changed = [json.dumps(change(number, row)) for number, row in enumerate(rows)]
    (data / "vqa.jsonl").write_text("\n".join(changed))


def with_an_empty_answer(model: Path, data: Path, recipe: Recipe) -> None:
    changed_rows(data, lambda number, row: row | {"answer": " "} if number == 10 else row)


def with_a_mark_in_a_question(model: Path, data: Path, recipe: Recipe) -> None:
    changed_rows(data, lambda number, row: row | {"question": "<image> what?"} if number == 3 else row)


def without_pictures(model: Path, data: Path, recipe: Recipe) -> None:
    for number in (3, 5, 9, 11, 14):  # the first 16 are trained on
        (data / "images" / f"{number:04d}.png").unlink()


def with_a_picture_from_elsewhere(model: Path, data: Path, recipe: Recipe) -> None:
    picture = data / "images" / "0003.png"
    picture.rename(data.parent / "elsewhere.png")
    picture.symlink_to(data.parent / "elsewhere.png")


def with_keys(**keys: Any) -> Change:
    def change(model: Path, data: Path, recipe: Recipe) -> None:
        for path, value in keys.items():
            *between, key = path.split("__")
            place = recipe
            for word in between:
                place = place[word]
            place[key] = value

    return change


CASES: dict[str, tuple[Change, str]] = {
    "no processor": (without_processor, "`backbone.name` must have a processor beside the model"),
    "no image processor": (with_tokenizer_alone, "`backbone.name` must have a processor beside the model"),
    "no template": (without_template, "chat: its processor has no chat template"),
    "no such reader": (with_keys(backbone__reader="chatt"), "Did you mean 'chat'"),
    "another reader": (with_keys(backbone__reader="dual_encoder"), "'dual_encoder' does not fit"),
    "unknown type": (
        of_unknown_type,
        "cannot be read: The checkpoint you are trying to load has model type `llavva`",
    ),
    "two pictures for one": (
        with_keys(tasks__vqa__ask="{image} or {image}? {question}"),
        "Task 'vqa' cannot be read on its train split: `ask` must have one {image} for each picture, but "
        "vqa/train-1 has 1 for 2",
    ),
    "a mark in the text": (
        with_a_mark_in_a_question,
        "the pictures of a row must agree with its prompt, but vqa/train-4 has 1 for 2 '<image>' in the text",
    ),
    "empty answer": (with_an_empty_answer, "must hold a word, but 1 of 16 records have an empty one"),
    "absent pictures": (
        without_pictures,
        "Task 'vqa' cannot be run on its train split. The images and videos of 'table' (train) must be there, but 5 "
        "of 16 files are not: ",
    ),
    "a picture from elsewhere": (with_a_picture_from_elsewhere, "is a link that leads out of it"),
    "unknown word": (with_keys(tasks__vqa__ask="{qestion}"), "Did you mean 'question'"),
    "the answer told": (with_keys(tasks__vqa__ask="{answers}?"), "must not tell what is asked for"),
    "long answers": (
        with_keys(tasks__caption__max_target_tokens=3),
        "`tasks.caption.max_target_tokens` must be at least the length of every answer, but is 3, and 16 of 16",
    ),
    "long rows": (
        with_keys(training__max_tokens=30),
        "Task 'vqa' cannot be trained, for at least 16 of 16 rows are too long (the words of all rows counted, 4 read "
        "with their pictures). `training.max_tokens` must be at least the length of every row, but is 30, and vqa/",
    ),
    "rows that are long by their pictures": (
        with_keys(training__max_tokens=45),
        "Task 'vqa' cannot be trained, for at least 4 of 16 rows are too long",
    ),
    "unknown setting": (with_keys(backbone__processor={"patchsize": 8}), "Did you mean 'patch_size'"),
    "cut rows": (with_keys(training__too_long="cut"), "`training.too_long` must be left out"),
    "cut texts": (with_keys(tasks__vqa__max_text_tokens=9), "`tasks.vqa.max_text_tokens` must be left out"),
    "moved pictures": (
        with_keys(training__vision="trained", training__shift=2),
        "`training.shift` must be left out",
    ),
    "all answers": (with_keys(tasks__vqa__answers="all"), "`tasks.vqa.answers` must be 'drawn'"),
    "stored features": (with_keys(tasks__vqa__data__features="store"), "needs `features` if one has them"),
    "a second stage": (with_keys(evaluation={"rerank": 4}), "`evaluation.rerank` must be"),
    "prompt and ask": (with_keys(tasks__vqa__prompt="vqa: "), "give either `ask` or `prompt`"),
}


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize("case", CASES)
def test_a_fault_is_said_once_before_any_weight_is_loaded(
    case: str,
    folders: tuple[Path, Path],
    recipe: Recipe,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, message = CASES[case]
    change(*folders, recipe)
    assert message in refused(recipe, tmp_path, capsys)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
@pytest.mark.parametrize("bits", ["8bit", "nf4"])
def test_quantisation_without_its_library_is_refused(
    bits: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["backbone"]["quantize"] = bits
    assert "`backbone.quantize` needs bitsandbytes, which is not installed" in refused(
        recipe, tmp_path, capsys
    )


@pytest.mark.usefixtures("no_weights")
@pytest.mark.skipif(is_flash_attn_2_available(), reason="flash-attn is installed")
def test_flash_attention_without_its_library_is_refused(
    recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe["backbone"]["attention"] = "flash"
    assert "`backbone.attention` needs flash-attn and a GPU for 'flash'" in refused(recipe, tmp_path, capsys)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("clip", "image_qa", "cannot write an answer"),
        ("llava", "retrieval", "cannot give features of texts and of images"),
    ],
)
def test_what_a_model_cannot_do_is_refused(
    name: str, kind: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_of(tiny(name).save(tmp_path / name), write_own_data(tmp_path / "data"), tmp_path)
    recipe["tasks"] = {"one": own_task(tmp_path / "data", kind)}
    assert message in refused(recipe, tmp_path, capsys)


@pytest.mark.usefixtures("no_weights")
@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"backbone": {"name": "miniature", "dtype": "bfloat16"}}, "backbone.dtype"),
        ({"backbone": {"name": "miniature", "processor": {"size": 8}}}, "backbone.processor"),
        ({"backbone": {"name": "miniature"}}, "tasks.vqa.ask"),
    ],
    ids=["dtype", "processor", "ask"],
)
def test_keys_of_other_models_are_refused_where_they_have_no_meaning(
    change: Recipe, key: str, recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"`{key}`" in refused(recipe | change, tmp_path, capsys)


@pytest.mark.skipif(is_torchvision_available(), reason="torchvision is installed")
def test_a_library_that_a_processor_needs_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    recipe = recipe_of(tiny("qwen2_5_vl").save(tmp_path / "qwen"), folders[1], tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    # In a process of its own: here, the processor was built without it.
    done = subprocess.run(
        [sys.executable, "-m", "weft.train", str(path)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "needs torchvision, which is not installed. Run `pip install torchvision`" in done.stderr


@pytest.mark.usefixtures("no_weights")
def test_a_plan_needs_a_config_and_nothing_else(
    folders: tuple[Path, Path], recipe: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(folders[0] / "config.json", alone)
    for name in (str(folders[0]), str(alone)):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe | {"backbone": {"name": name}}), encoding="utf-8")
        with pytest.raises(SystemExit) as ended:
            main(["plan", str(path)])
        assert not ended.value.code
    first, second = capsys.readouterr().out.split("LlavaForConditionalGeneration")[1:]
    assert first == second

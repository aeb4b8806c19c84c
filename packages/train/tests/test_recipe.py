from pathlib import Path

import pytest
import yaml

from weft.train.errors import RecipeError, near
from weft.train.recipe.files import apply_overrides, built_in_recipes, find_recipe, merge, read_yaml
from weft.train.recipe.loading import load_any, load_recipe


def test_every_fault_is_reported_at_once_with_near_matches(values):
    values["trainig"] = {}
    values["training"]["lerning_rate"] = 1
    values["training"]["batch_size"] = 0
    values["method"]["method"] = "botleneck"
    values["tasks"]["vqa"]["data"]["tst"] = "test"
    with pytest.raises(RecipeError) as caught:
        load_recipe(values)
    message = str(caught.value)
    assert message.startswith("the recipe has 5 faults:")
    assert "trainig: unknown key. Did you mean 'training'" in message
    assert "training.lerning_rate: unknown key. Did you mean 'learning_rate'" in message
    assert "training.batch_size: Input should be greater than 0, but is 0." in message
    assert "Did you mean 'bottleneck'" in message
    assert "tasks.vqa.data.tst: unknown key. Did you mean 'test'" in message


def test_a_key_of_another_section_is_named_with_its_place(values):
    with pytest.raises(RecipeError, match=r"training\.seed: unknown key\. Did you mean 'seed'\?"):
        load_recipe(values, ["training.seed=2"])
    with pytest.raises(RecipeError, match=r"Did you mean 'training.batch_size' or 'evaluation.batch_size'\?"):
        load_recipe(values, ["batch_size=2"])


def test_missing_keys_are_named(values):
    del values["backbone"], values["training"]["learning_rate"]
    with pytest.raises(RecipeError, match=r"backbone: this key is needed.*\n.*training.learning_rate"):
        load_recipe(values)


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("training", {"epochs": 2}, "either `steps` or `epochs`"),
        ("training", {"steps": None}, "either `steps` or `epochs`"),
        ("backbone", {"language": "facebook/bart-base"}, "either `name`"),
        ("backbone", {"name": None}, "either `name`"),
    ],
)
def test_keys_that_exclude_each_other(values, section, change, message):
    values[section] |= change
    with pytest.raises(RecipeError, match=message):
        load_recipe(values)


def test_task_names_are_lower_case_words(values):
    values["tasks"]["VQA v2"] = values["tasks"].pop("vqa")
    with pytest.raises(RecipeError, match=r"task names are lower-case letters.*'VQA v2'"):
        load_recipe(values)


def test_overrides_reach_any_depth_and_read_yaml():
    changed = apply_overrides({"a": {"b": 1, "c": 2}}, ["a.b=[1, two]", "d.e=1.5", "a.c=null"])
    assert changed == {"a": {"b": [1, "two"], "c": None}, "d": {"e": 1.5}}


def test_overrides_reach_into_lists_by_number():
    values = {"method": [{"method": "lora"}, {"method": "frozen"}], "shots": [1, 2]}
    changed = apply_overrides(values, ["method.1.train_full=[norms]", "shots.0=4"])
    assert changed == {
        "method": [{"method": "lora"}, {"method": "frozen", "train_full": ["norms"]}],
        "shots": [4, 2],
    }
    assert values["shots"] == [1, 2]
    for entry in ("method.2.rank=1", "method.first.rank=1"):
        with pytest.raises(RecipeError, match="must call an entry of 'method' by its number, 0 to 1"):
            apply_overrides(values, [entry])


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("steps", "must be `key.sub=value`"),
        ("a.b=1", "must follow mappings and lists, but 'a' holds 3"),
        ("a=[", "must be YAML"),
    ],
)
def test_overrides_that_cannot_be_read(entry, message):
    with pytest.raises(RecipeError, match=message):
        apply_overrides({"a": 3}, [entry])


def test_a_rate_in_scientific_notation_is_a_number(values):
    recipe = load_recipe(values, ["training.learning_rate=3e-4"])
    assert recipe.training.learning_rate == pytest.approx(3e-4)


def test_a_recipe_is_laid_over_the_one_it_extends(tmp_path: Path):
    (tmp_path / "base.yaml").write_text("a: {b: 1, c: 2}\nmethod: {method: full}\n")
    (tmp_path / "top.yaml").write_text("extends: base.yaml\na: {b: 3}\nmethod: {method: lora, rank: 2}\n")
    assert read_yaml(tmp_path / "top.yaml") == {
        "a": {"b": 3, "c": 2},
        "method": {"method": "lora", "rank": 2},
    }
    assert merge({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "must be YAML"),
        ("- a", "must hold a mapping"),
        ("extends: nowhere.yaml", "must name a file beside it"),
        ("extends: recipe.yaml", "must name another file"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text, message):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_a_misspelt_built_in_name_gets_near_matches():
    with pytest.raises(RecipeError, match="Did you mean 'demo/single_adapter'"):
        find_recipe("demo/sngle_adapter")


def test_near_lists_everything_when_nothing_is_near():
    assert near("zzz", ["b", "a"]) == "Known: a, b."
    assert near("zzz", map(str, range(10, 30))).endswith("20, 21 and 8 more.")


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_shipped_recipe_is_valid(name):
    recipe = load_any(name)
    again = load_any(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))))
    assert again == recipe


def test_the_papers_settings_lie_between_the_file_and_the_command_line():
    name = "vl_adapter/image/bart/single_adapter"
    plain, paper = load_recipe(name), load_recipe(name, ["paper=true"])
    assert (plain.tasks["gqa"].prompt, paper.tasks["gqa"].prompt) == ("gqa: ", "gpa: ")
    assert (plain.tasks["caption"].max_new_tokens, paper.tasks["caption"].max_new_tokens) == (40, 19)
    assert paper.tasks["caption"].no_repeat_ngram_size == 3
    assert (plain.training.decay_norms, paper.training.decay_norms) == (False, True)
    own = load_recipe(name, ["paper=true", "tasks.caption.max_new_tokens=30"])
    assert (own.tasks["caption"].max_new_tokens, own.tasks["gqa"].prompt) == (30, "gpa: ")


@pytest.mark.parametrize("value", ["1", "'true'"])
def test_only_true_turns_the_papers_settings_on(value):
    with pytest.raises(RecipeError, match="paper: Input should be a valid boolean, but is"):
        load_recipe("vl_adapter/image/bart/single_adapter", [f"paper={value}"])


def test_a_section_that_is_none_and_a_rule_of_our_own_say_the_value_once(values):
    values |= {"training": 5, "evaluation": {"batch_size": 0}}
    with pytest.raises(
        RecipeError, match=r"training: this must be a mapping of keys, but is 5\.\n"
    ) as caught:
        load_recipe(values)
    assert str(caught.value).endswith("evaluation.batch_size: Input should be greater than 0, but is 0.")


def test_a_saved_recipe_keeps_what_was_changed_over_the_papers_settings():
    name = "vl_adapter/image/bart/single_adapter"
    own = load_recipe(name, ["paper=true", "tasks.caption.max_new_tokens=30"])
    assert load_recipe(own.model_dump(mode="json")) == own


def test_methods_without_prompts_have_none_in_the_paper_either():
    assert load_recipe("vl_adapter/image/bart/multiple_adapters", ["paper=true"]).tasks["gqa"].prompt == ""


def test_a_recipe_that_follows_no_paper_says_so(values):
    with pytest.raises(RecipeError, match="`paper` must be false where the recipe has no `paper_settings`"):
        load_recipe(values, ["paper=true"])

import re

import pytest
import yaml

from weft.train.cli import main
from weft.train.errors import RecipeError
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.plain_yaml import read_plain_yaml
from weft.train.runs.sweep import read_axes


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10", 10),
        ("0", 0),
        ("-3", -3),
        ("1_000", 1000),
        ("0x1F", 31),
        ("1.5", 1.5),
        ("1.0e-05", 1e-5),
        ("1e-3", "1e-3"),
        ("08", "08"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("~", None),
        ("[a, 1]", ["a", 1]),
    ],
)
def test_values_are_what_they_look_like(text, value):
    assert read_plain_yaml(text) == value
    assert type(read_plain_yaml(text)) is type(value)


@pytest.mark.parametrize("value", ["010", "08", "1:30", "1.0e5", "2024-01-01", "=1", "no", "1e-3"])
def test_what_a_run_writes_down_reads_back(value):
    assert read_plain_yaml(yaml.safe_dump({"a": value})) == {"a": value}


def test_a_key_that_comes_twice_is_refused_with_both_lines(values, tmp_path):
    file = tmp_path / "recipe.yaml"
    text = yaml.safe_dump(values, sort_keys=False)
    file.write_text(text + "seed: 1\nevaluation:\n  batch_size: 1\n  batch_size: 2\n")
    first = text.count("\n") + 3
    with pytest.raises(RecipeError, match=rf"'batch_size' is in line {first} and in line {first + 1}"):
        load_recipe(file)
    line = text.splitlines().index("name: tiny") + 1
    file.write_text(text + "name: other\n")
    last = text.count("\n") + 1
    with pytest.raises(RecipeError, match=rf"'name' is in line {line} and in line {last}\. Take one"):
        load_recipe(file)


def test_a_key_that_overrides_an_anchor_stands_once():
    assert read_plain_yaml("x: &x {p: 1, q: 1}\ny: {<<: *x, p: 2}")["y"] == {"p": 2, "q": 1}


def test_a_number_that_is_octal_to_some_is_refused(values):
    with pytest.raises(RecipeError, match=r"'010' does: YAML 1\.1 reads it in base 8\. Write 10, or '010'"):
        load_recipe(values, ["training.steps=010"])
    with pytest.raises(RecipeError, match="`--grid` must be"):
        read_axes(["training.steps=010,020"])
    with pytest.raises(RecipeError, match=re.escape("'rank' is in line 1 and in line 1")):
        load_recipe(values, ["method={method: lora, rank: 4, rank: 8}"])


def test_an_option_that_comes_twice_is_refused(capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["data", "check", "table", str(tmp_path), "--option", "file=a.csv", "--option", "file=b.csv"])
    assert ended.value.code == 2
    assert "`--option` must name each key once, but 'file' comes twice" in capsys.readouterr().err

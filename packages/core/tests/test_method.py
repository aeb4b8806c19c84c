"""Methods from words: every fault at once, with near matches, alone and within another model."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from weft.core import BottleneckConfig, LoRAConfig, MethodConfig, parse_method, register_unit
from weft.core.errors import ConfigError
from weft.core.unit.protocol import UnitConfig, units


class Recipe(BaseModel):
    method: MethodConfig
    epochs: int = 1


def faults(value):
    with pytest.raises(ConfigError) as caught:
        parse_method(value)
    return str(caught.value).splitlines()[1:]


def test_words_configurations_and_lists_are_taken():
    config = BottleneckConfig(bottleneck_size=4)
    words = {"method": "bottleneck", "bottleneck_size": 4}
    assert parse_method(words) == parse_method(config) == parse_method([words]) == (config,)
    assert parse_method([words, LoRAConfig()]) == (config, LoRAConfig())


def test_one_word_stands_for_a_list_of_one():
    (config,) = parse_method({"method": "bottleneck", "bottleneck_size": 4, "towers": "text", "layers": 1})
    assert config.towers == ("text",)
    assert config.layers == (1,)


def test_all_faults_are_told_at_once():
    found = faults(
        {
            "method": "bottleneck",
            "botleneck_size": 4,
            "activation": "gelu_tan",
            "blocks": ["fnn"],
            "sharing": "hlaf",
            "scale": "big",
        }
    )
    assert len(found) == 5
    assert "Did you mean 'half'" in found[0]
    assert "Did you mean 'gelu_tanh' or 'gelu'" in found[1]
    assert found[2].startswith(
        "- blocks.0: `blocks` must be among the known names, but is 'fnn'. Did you mean 'ffn'"
    )
    assert found[3].startswith("- scale: ")
    assert "Did you mean 'bottleneck_size'" in found[4]


def test_a_misspelt_method_is_named():
    assert faults({"method": "bottelneck"}) == [
        "- method: `method` must be among the known names, but is 'bottelneck'. Did you mean 'bottleneck'?"
    ]


@pytest.mark.parametrize("value", ["bottleneck", 3, None, [], {}], ids=str)
def test_what_is_no_method_is_refused(value):
    assert "method" in faults(value)[0]


def test_faults_of_a_list_say_where():
    found = faults([{"method": "lora", "rank": 0}, {"method": "lora"}, "lora"])
    assert found[0].startswith("- 0.rank: ")
    assert found[1].startswith("- 2: a method must be a mapping")


def test_two_of_one_method_must_be_told_apart():
    assert (
        "`name` must be unique within a composition, but 'lora' occurs twice"
        in faults([LoRAConfig(), LoRAConfig()])[0]
    )


def test_faults_keep_their_place_in_another_model():
    with pytest.raises(ValidationError) as caught:
        Recipe(method=[{"method": "lora", "alfa": 3}], epochs="many")
    assert [fault["loc"] for fault in caught.value.errors()] == [("method", 0, "alfa"), ("epochs",)]


def test_a_recipe_writes_its_method_back():
    recipe = Recipe(method={"method": "bottleneck", "bottleneck_size": 4, "sharing": "half"})
    words = json.loads(recipe.model_dump_json())
    assert words["method"]["sharing"] == {"up": ["task"], "down": []}
    assert Recipe(**words) == recipe


def test_the_json_schema_has_every_unit():
    schema = Recipe.model_json_schema()
    text = json.dumps(schema)
    assert all(f'"{method}"' in text for method in units())


def test_a_unit_from_outside_joins_in():
    from typing import Literal

    class Mine(UnitConfig):
        method: Literal["mine"] = "mine"
        size: int = 1

    try:
        register_unit(Mine)
        assert parse_method({"method": "mine", "size": 2}) == (Mine(size=2),)
        assert "Did you mean 'mine'" in faults({"method": "min"})[0]
        assert Recipe(method={"method": "mine"}).method == (Mine(),)

        class Other(UnitConfig):
            method: Literal["mine"] = "mine"

        with pytest.raises(ConfigError, match="`method` must be new, but 'mine' is taken by"):
            register_unit(Other)
    finally:
        units().forget("mine")


def test_a_unit_without_a_name_is_refused():
    with pytest.raises(ConfigError, match="`method` of UnitConfig must have its name as default"):
        register_unit(UnitConfig)


def test_units_are_listed_alphabetically():
    assert list(units()) == sorted(units())

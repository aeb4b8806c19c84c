"""What the commands do, without the command line."""

from pathlib import Path

import pytest

import weft.train
from weft.train.errors import RecipeError


def test_a_dictionary_is_looked_at_trained_and_scored_again(values, tmp_path):
    assert weft.train.look(values).steps == 6
    result = weft.train.train(values, ["training.steps=1"])
    assert result.folder == Path(values["output"]) / "tiny"
    assert weft.train.evaluate(str(result.folder)).scores == result.scores
    assert weft.train.look(values).steps == 6, "the folder of an earlier run keeps nobody from looking"


def test_faults_are_the_same_as_on_the_command_line(values):
    with pytest.raises(RecipeError, match="stepz: unknown key"):
        weft.train.train(values, ["training.stepz=1"])


@pytest.mark.parametrize("recipe", [["a.yaml"], None, 3])
def test_what_is_no_recipe_is_refused_in_words(recipe):
    with pytest.raises(RecipeError, match="`recipe` must be a dictionary, a path or a built-in name, but is"):
        weft.train.train(recipe)

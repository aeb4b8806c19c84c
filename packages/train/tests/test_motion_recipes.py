"""The recipes about moving objects: UniAdapter learns the order of frames with a unit that sees it."""

import shutil

import pytest

from weft.core import plan
from weft.train.backbones.loading import planned_model
from weft.train.recipe.loading import load_recipe
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute

CHANCE = 25.0


def test_a_few_per_cent_are_trained():
    recipe = load_recipe("motion/questions")
    found = plan(planned_model(recipe.backbone), recipe.method, list(recipe.tasks))
    assert {config.method for config in found.configs} >= {"uniadapter", "st_adapter"}
    assert found.trainable_parameters == 39_216
    whole = load_recipe("motion/questions_backbone")
    assert plan(planned_model(whole.backbone), whole.method).percent == 100


@pytest.mark.slow
def test_questions_about_the_order_of_frames_are_learned_and_need_that_order(tmp_path):
    pytest.importorskip("av")
    options = ["tracking.enabled=false", f"output={tmp_path}"]
    execute(load_recipe("motion/questions_backbone", options))
    backbone = f"backbone={{name: {tmp_path}/motion_questions_backbone/model}}"
    run = execute(load_recipe("motion/questions", [*options, backbone]))
    found = run.reports["motion"]["scores"]["accuracy"]
    assert found > CHANCE + 15
    # The same weights, shown the same frames in random order.
    recipe = run.folder / "recipe.yaml"
    shuffled = tmp_path / "shuffled"
    shuffled.mkdir()
    shutil.copytree(run.folder / "adapter", shuffled / "adapter")
    text = recipe.read_text(encoding="utf-8")
    (shuffled / "recipe.yaml").write_text(
        text.replace("test_options:\n", "test_options:\n        shuffled: true\n")
    )
    again = rescore(shuffled).reports["motion"]["scores"]["accuracy"]
    assert again < found - 10

"""The shipped noto-emoji recipes on the real files; each trains for a minute or two."""

from pathlib import Path

import pytest

from weft.data import load_dataset
from weft.train.output.result import Result
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(realdata: Path) -> Path:
    return realdata / "googlefonts+noto-emoji"


def run(name: str, root: Path, output: Path, *changes: str) -> Result:
    recipe = load_recipe(f"noto_emoji/{name}", ["tracking.enabled=false", f"output={output}", *changes])
    roots = [f"tasks.{task}.data.root={root}" for task in recipe.tasks]
    return execute(
        load_recipe(f"noto_emoji/{name}", ["tracking.enabled=false", f"output={output}", *roots, *changes])
    )


@pytest.fixture(scope="module")
def english(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run("retrieval_english", root, tmp_path_factory.mktemp("english"))


def test_half_of_the_english_names_find_their_image_first(english):
    scores = english.reports["en"]["scores"]
    assert english.reports["en"]["n"] == 527
    assert scores["t2i_R@1"] >= 50
    assert scores["i2t_R@1"] >= 50
    by_tone = english.reports["en"]["groups"]["skin_tone: t2i_R@1"]
    assert by_tone["variant"]["score"] >= 80
    assert by_tone["plain"]["score"] >= 15


def test_adapters_bring_other_languages_to_the_frozen_backbone(english, root, tmp_path):
    model = f"backbone.name={english.folder / 'model'}"
    untrained = run("retrieval_languages", root, tmp_path, model, "name=untrained", "training.steps=1")
    adapted = run("retrieval_languages", root, tmp_path, model)
    assert adapted.trainable < 0.15 * adapted.total
    for language in ("de", "es", "fr"):
        before, after = (each.reports[language]["scores"] for each in (untrained, adapted))
        assert after["t2i_R@1"] >= before["t2i_R@1"] + 8
        assert after["t2i_R@10"] >= before["t2i_R@10"] + 25


def test_names_that_no_training_image_has_are_written_word_for_word(root, tmp_path):
    def names(split: str) -> list[str]:
        records = load_dataset("noto_emoji", root=root, split=split, task="caption", languages="en")
        return [caption for record in records for caption in record.captions]

    assert not set(names("test")) & set(names("train"))
    best_constant = 100 / len(set(names("test")))
    result = run("captions", root, tmp_path)
    assert result.scores["en"] >= 50 * best_constant

"""The recipes of VL-Adapter on a BART of a few thousand weights: official files, real pictures, stored features."""

import json
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from weft.core.composites.visual_embedding import pool_grid
from weft.data.features.index import FeatureKey
from weft.data.features.store import FeatureStore
from weft.data.features.write import write_features
from weft.eval.errors import ScoreInputError
from weft.train.errors import RecipeError, RunError
from weft.train.preflight.stored import open_features
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute
from weft.train.testing import grid_features, write_image_tasks, write_video_tasks
from weft.train.testing.stored_features import write_bart

CLOTHES = "alexeygrigorev+clothing-dataset-small/images_short80.zip"


@pytest.fixture(scope="module")
def pictures(realdata: Path) -> list[tuple[Image.Image, str]]:
    """One real photo of each of ten kinds of clothes."""
    with zipfile.ZipFile(realdata / CLOTHES) as archive:
        first: dict[str, str] = {}
        for name in archive.namelist():
            if name.endswith(".jpg"):
                first.setdefault(name.split("/")[1], name)
        return [(Image.open(archive.open(name)).convert("RGB"), kind) for kind, name in sorted(first.items())]


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bart")
    write_bart(folder, width=16, layers=1, heads=2, max_position_embeddings=640)
    return folder


@pytest.fixture
def changes(tmp_path: Path, bart: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("WEFT_DATA", str(tmp_path))
    return [
        f"backbone.language={bart}",
        "backbone.feature_size=48",
        f"output={tmp_path / 'runs'}",
        "tracking.enabled=false",
        "training={steps: 3, batch_size: 4, learning_rate: 0.01}",
    ]


def pool(path: Path) -> None:
    """Replace a store by one that holds 36 tokens an image."""
    store = FeatureStore(path)
    items = [(name, pool_grid(torch.from_numpy(np.array(whole)), 36).numpy()) for name, whole in store]
    shutil.rmtree(path)
    write_features(path, items, store.key)


def stored_config() -> Any:
    return SimpleNamespace(feature_size=48, num_visual_tokens=36)


def small_batches(tasks: str) -> list[str]:
    return [f"tasks.{name}.batch_size=4" for name in tasks.split()]


IMAGE = small_batches("vqa gqa nlvr caption") + [
    f"tasks.{name}.max_new_tokens=3" for name in ["vqa", "gqa", "caption"]
]
VIDEO = small_batches("tvqa how2qa tvc yc2c") + [
    f"tasks.{name}.max_new_tokens=3" for name in ["tvqa", "how2qa", "tvc", "yc2c"]
]


def test_the_image_tasks_train_from_stores_and_score_again(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    recipe = load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE])
    result = execute(recipe)
    assert set(result.scores) == {"vqa", "gqa", "nlvr", "caption", "average"}
    assert result.reports["nlvr"]["metric"].startswith("nlvr2")
    assert rescore(result.folder).scores == result.scores


def test_every_record_gets_the_features_of_its_own_picture(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    recipe = load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE])
    tasks = load_tasks(recipe)
    stored = open_features(recipe, tasks, stored_config())
    kinds = {kind: grid_features(picture) for picture, kind in pictures}
    for question in (*tasks["gqa"]["train"], *tasks["gqa"]["test"]):
        found = stored([question.media_refs()])["visual_features"]
        assert np.array_equal(found[0, 0].numpy(), kinds[question.answers[0]].astype(np.float32))
    pair = tasks["nlvr"]["train"][0]
    left, right = stored([pair.media_refs()])["visual_features"][0]
    assert np.array_equal(left.numpy(), grid_features(pictures[0][0]).astype(np.float32))
    assert np.array_equal(right.numpy(), grid_features(pictures[1][0]).astype(np.float32))
    blind = open_features(load_recipe(recipe.model_dump(), ["blank_images=true"]), tasks, stored_config())
    assert not blind([pair.media_refs()])["visual_features"].any()


def test_the_video_tasks_train_and_hidden_tests_are_predicted_only(tmp_path, pictures, changes):
    write_video_tasks(tmp_path, pictures, rows=12)
    recipe = load_recipe("vl_adapter/video/bart/half_shared_adapters", [*changes, *VIDEO])
    result = execute(recipe)
    assert result.scores == {}
    written = {path.name for path in (result.folder / "predictions").iterdir()}
    assert written == {f"{name}.json" for name in ("tvqa", "how2qa", "tvc", "yc2c")} | {
        "tvqa.submission.json",
        "how2qa.submission.json",
        "tvc.submission.jsonl",
        "yc2c.submission.jsonl",
    }
    asked = json.loads((result.folder / "predictions" / "tvqa.submission.json").read_text())
    assert len(asked) == 4
    scores = rescore(result.folder, role="validation").scores
    assert set(scores) == {"tvqa", "how2qa", "tvc", "yc2c", "average"}


def test_a_gap_in_the_features_is_named_before_anything_is_written(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    rows: Any = json.loads((tmp_path / "GQA" / "testdev.json").read_text())
    rows[3]["img_id"] = "n77"
    (tmp_path / "GQA" / "testdev.json").write_text(json.dumps(rows))
    with pytest.raises(ScoreInputError, match=r"1 have none in .*vg_rn101 or .*gqa_rn101: 'images/n77.jpg'"):
        execute(load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE]))
    assert not (tmp_path / "runs").exists()


def test_features_of_another_width_are_refused(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    with pytest.raises(RunError, match=r"shape \(tokens, 64\).*holds \(49, 48\)"):
        execute(
            load_recipe(
                "vl_adapter/image/bart/single_adapter", [*changes, *IMAGE, "backbone.feature_size=64"]
            )
        )


def test_stores_of_different_lengths_are_refused(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    pool(tmp_path / "features" / "nlvr_rn101")
    with pytest.raises(RunError, match=r"nlvr_rn101 holds 36. Import them again with --tokens 36"):
        execute(load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE]))


def test_training_on_features_pooled_once_changes_no_bit(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    recipe = load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE])
    whole = execute(recipe)
    for store in (tmp_path / "features").iterdir():
        pool(store)
    pooled = execute(load_recipe(recipe.model_dump(), [f"output={tmp_path / 'again'}"]))
    assert pooled.scores == whole.scores
    (first,), (second,) = (list(run.folder.rglob("adapter_model.safetensors")) for run in (whole, pooled))
    weights, again = load_file(first), load_file(second)
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_dual_encoder_reads_no_stored_features(values, tmp_path):
    write_features(tmp_path / "store", [("a", np.zeros((4, 8), np.float16))], FeatureKey("e", "w", "t"))
    for task in values["tasks"].values():
        task["data"]["features"] = str(tmp_path / "store")
    with pytest.raises(RecipeError, match="must be 'frozen' where `features` are given"):
        execute(load_recipe(values, ["training.vision=trained"]))
    with pytest.raises(RecipeError, match=r"tasks\.nlvr\.data\.features: every task"):
        execute(load_recipe(values, ["tasks.nlvr.data.features=null"]))


def test_each_caption_is_an_example_where_asked(tmp_path, pictures, changes):
    write_image_tasks(tmp_path, pictures, rows=20)
    recipe = load_recipe("vl_adapter/image/bart/single_adapter", [*changes, *IMAGE])
    caption = load_tasks(recipe, ("train", "validation"))["caption"]
    assert len(caption["train"]) == 5 * 5
    assert {len(record.captions) for record in caption["train"]} == {1}
    assert {len(record.captions) for record in caption["validation"]} == {5}
    gqa = load_tasks(recipe)["gqa"]["train"]
    assert (gqa.split, len(gqa)) == ("vlt5_train+vlt5_valid", 24)

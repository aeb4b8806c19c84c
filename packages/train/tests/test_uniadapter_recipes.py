"""The shipped UniAdapter recipes: their counts, and a small BLIP trained and reranked on real files."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from weft.core import plan
from weft.data.errors import InvalidArgumentError
from weft.train.backbones.loading import load_backbone, planned_model
from weft.train.errors import RecipeError, RunError
from weft.train.preflight.fitness import check_fit
from weft.train.preflight.tasks import load_tasks
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.sections import BackboneSection
from weft.train.runs.rescore import rescore
from weft.train.runs.run import execute

RETRIEVAL = ("coco", "flickr30k", "msrvtt", "didemo")


@pytest.mark.parametrize("name", RETRIEVAL)
def test_counts_of_the_retrieval_recipes(name):
    recipe = load_recipe(f"uniadapter/{name}")
    planned = plan(planned_model(recipe.backbone), recipe.method, list(recipe.tasks))
    # Adapters of 128 without the norm behind the cross branch, and the heads; the temperature is frozen.
    assert planned.trainable_parameters == 4_766_208 + 395_266
    resolution = 224 if name in ("msrvtt", "didemo") else 384
    assert planned.backbone_parameters == {224: 223_452_418, 384: 223_744_258}[resolution] + 1
    text = planned_model(recipe.backbone).config.text_config
    assert (text.num_attention_heads, text.hidden_dropout_prob) == (12, 0.1)
    assert recipe.training.contrast.queue_size % recipe.training.batch_size == 0


@pytest.mark.parametrize("size", [64, 512])
def test_counts_of_any_size_are_asked_for_on_the_command_line(size):
    changes = [f"method.bottleneck_size={size}", "method.cross_norm=trained"]
    recipe = load_recipe("uniadapter/flickr30k", changes)
    planned = plan(planned_model(recipe.backbone), recipe.method)
    assert planned.components["uniadapter"] == 36_876 * size + 64_512
    answering = load_recipe("uniadapter/vqav2", changes)
    planned = plan(planned_model(answering.backbone), answering.method)
    assert planned.trainable_parameters == 36_876 * size + 64_512
    assert planned.backbone_parameters == 361_478_972


@pytest.mark.parametrize(("name", "total"), [("coco_caption", 223_971_644), ("msrvtt_qa", 360_938_300)])
def test_counts_of_the_recipes_that_write(name, total):
    recipe = load_recipe(f"uniadapter/{name}")
    model = planned_model(recipe.backbone)
    planned = plan(model, recipe.method, list(recipe.tasks))
    assert (planned.trainable_parameters, planned.backbone_parameters) == (4_766_208, total)
    text = model.config.text_config
    assert (text.num_attention_heads, text.label_smoothing) == (12, 0.1)


def tiny(root, output):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    special = {"bos_token_id": 400, "sep_token_id": 2, "eos_token_id": 2, "pad_token_id": 1}
    return {
        "name": "tiny_blip",
        "backbone": {
            "image_size": 32,
            "tokenizer": {"vocabulary_size": 400},
            "config": {
                "model_type": "weft_blip_retrieval",
                "image_text_hidden_size": 16,
                "encode_token_id": 401,
                "text_config": {**sizes, **special, "vocab_size": 402, "max_position_embeddings": 64},
                "vision_config": {**sizes, "image_size": 32, "patch_size": 16, "initializer_range": 0.02},
            },
        },
        "method": [
            {"method": "uniadapter", "bottleneck_size": 8, "train_full": ["projector", "head"]},
        ],
        "tasks": {
            "en": {
                "headline": "t2i_R@10",
                "data": {
                    "name": "noto_emoji",
                    "root": str(root),
                    "options": {"task": "retrieval", "languages": "en"},
                    "sizes": {"train": 64, "test": 24},
                },
            }
        },
        "training": {
            "steps": 6,
            "batch_size": 16,
            "learning_rate": 1e-3,
            "vision": "trained",
            "save_every": 3,
            "contrast": {"queue_size": 64},
        },
        "evaluation": {"batch_size": 16, "rerank": 8},
        "tracking": {"enabled": False},
        "output": str(output),
    }


@pytest.fixture
def root(realdata: Path) -> Path:
    return realdata / "googlefonts+noto-emoji"


def test_a_small_blip_is_trained_resumed_and_reranked_on_real_files(root, tmp_path):
    whole = execute(load_recipe(tiny(root, tmp_path / "whole")))
    report = whole.reports["en"]
    assert report["variant"] == "best 8 texts and 8 images matched"
    assert report["n"] == 24
    ranked = (whole.folder / "predictions" / "en.json").read_text(encoding="utf-8")
    assert "text_to_image" in ranked
    # The same run, interrupted after half of its steps and resumed, ends with the same weights and scores.
    folder = tmp_path / "parts" / "tiny_blip"
    execute(load_recipe(tiny(root, tmp_path / "parts")))
    for name in ("adapter", "predictions"):
        shutil.rmtree(folder / name)
    (folder / "result.json").unlink()
    latest = folder / "checkpoints" / "checkpoint-6"
    assert (latest / "objective_contrastive.safetensors").is_file()
    shutil.rmtree(latest)
    resumed = execute(load_recipe(tiny(root, tmp_path / "parts")), resume=True)
    assert resumed.reports == whole.reports
    again = rescore(whole.folder)
    assert again.reports["en"]["scores"] == whole.reports["en"]["scores"]
    assert again.reports["en"]["variant"] == report["variant"]


def test_questions_about_moving_objects_are_trained_and_answered(tmp_path):
    pytest.importorskip("av")
    values = tiny("", tmp_path)
    config = values["backbone"]["config"] | {"model_type": "weft_blip_answering"}
    del config["image_text_hidden_size"]
    values["backbone"]["config"] = config
    values["method"] = {"method": "uniadapter", "bottleneck_size": 8}
    options = {"task": "motion", "size": 24, "num_scenes": 200, "num_frames": 4}
    data = {"name": "scenes", "options": options, "test_options": {"size": 12}}
    values["tasks"] = {"motion": {"max_new_tokens": 3, "data": data}}
    values["training"] |= {"steps": 2, "batch_size": 8, "save_every": 0, "frames": 4}
    values["evaluation"] = {"batch_size": 12}
    result = execute(load_recipe(values))
    assert result.reports["motion"]["metric"] == "open_ended_accuracy"
    assert result.reports["motion"]["n"] == 12
    with pytest.raises(InvalidArgumentError, match=r"at most the frames of .* \(4\), but is 5"):
        execute(load_recipe(values, ["training.frames=5", "name=longer"]))


def test_all_answers_to_questions_about_changed_images_are_trained_on(tmp_path):
    values = tiny("", tmp_path)
    config = values["backbone"]["config"] | {"model_type": "weft_blip_answering"}
    del config["image_text_hidden_size"]
    values["backbone"]["config"] = config
    values["method"] = {"method": "uniadapter", "bottleneck_size": 8}
    data = {
        "name": "scenes",
        "options": {"task": "vqa", "size": 24, "num_scenes": 40},
        "test_options": {"size": 8},
    }
    values["tasks"] = {"vqa": {"max_new_tokens": 3, "answers": "all", "data": data}}
    values["training"] |= {"steps": 2, "batch_size": 8, "save_every": 0}
    values["training"]["augment"] = {"smallest_crop": 0.5, "operations": 1}
    values["evaluation"] = {"batch_size": 8}
    result = execute(load_recipe(values))
    assert result.reports["vqa"]["n"] == 8
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(["lilac", "mauve"]))
    chosen = execute(load_recipe(values, [f"tasks.vqa.choose_from={answers}", "name=chosen"]))
    given = json.loads((chosen.folder / "predictions" / "vqa.json").read_text())
    assert set(given.values()) <= {"lilac", "mauve"}
    assert len(given) == 8
    answers.write_text(json.dumps({"lilac": 1}))
    with pytest.raises(RunError, match=r"`tasks\.vqa\.choose_from` must hold a list of texts"):
        execute(load_recipe(values, [f"tasks.vqa.choose_from={answers}", "name=wrong"]))
    with pytest.raises(
        RunError, match="must be a JSON file with a list of answers, but /nowhere cannot be read"
    ):
        execute(load_recipe(values, ["tasks.vqa.choose_from=/nowhere", "name=wrong"]))
    with pytest.raises(RecipeError, match="`augment` needs `vision: trained`"):
        load_recipe(values, ["training.vision=frozen"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "demo/single_adapter",
            "tasks.vqa.answers=all",
            r"`tasks\.vqa\.answers` must be 'drawn' for a backbone",
        ),
        (
            "motion/questions",
            "training.augment={}",
            r"`training\.augment` must be left out where a task has videos",
        ),
    ],
)
def test_answers_and_changes_that_do_not_fit_are_refused(name, change, message):
    sizes = [f"tasks.{task}.data.sizes={{train: 64}}" for task in load_recipe(name).tasks]
    recipe = load_recipe(name, [change, *sizes])
    with pytest.raises(RunError, match=message):
        check_fit(recipe, load_tasks(recipe, ("train",)))


def test_films_are_ranked_with_frame_aware_attention_beside_a_unit_that_sees_their_order(tmp_path):
    pytest.importorskip("av")
    values = tiny("", tmp_path)
    values["method"] += [
        {"method": "st_adapter", "frames": 3, "bottleneck_size": 8, "blocks": ["attention", "ffn"]},
        {"method": "frame_attention"},
    ]
    options = {"task": "motion_retrieval", "size": 32, "num_scenes": 100, "num_frames": 3, "max_objects": 2}
    data = {"name": "scenes", "options": options, "test_options": {"size": 12}}
    values["tasks"] = {"films": {"headline": "t2i_R@1", "data": data}}
    values["training"] |= {"steps": 2, "batch_size": 8, "save_every": 0, "frames": 3}
    for aware, said in ((False, ""), (True, ", frame-aware")):
        values["name"] = f"aware_{aware}"
        values["evaluation"] = {"batch_size": 12, "rerank": 4, "frame_aware": aware}
        report = execute(load_recipe(values)).reports["films"]
        assert (report["n"], report["variant"]) == (12, f"best 4 texts and 4 images matched{said}")


def test_a_frozen_tower_of_a_blip_is_run_in_every_batch():
    values = tiny("", "runs")
    values["method"] = {"method": "lora", "rank": 2, "towers": ["text"]}
    recipe = load_recipe(values, ["training.vision=frozen"])
    with pytest.raises(RunError, match=r"`training\.vision` must be 'trained' for .* does not read features"):
        check_fit(recipe, {})


def test_weights_belong_to_blip():
    with pytest.raises(RecipeError, match="`weights` is for a `config` of type weft_blip_retrieval"):
        load_recipe("noto_emoji/retrieval_english", ["backbone.weights=model_base.pth"])


def test_an_original_file_gives_a_recipe_its_weights(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "weft.train.backbones.loading.load_blip", lambda model, path: seen.append((model, path))
    )
    monkeypatch.setenv("WEFT_TEST_WEIGHTS", str(tmp_path))
    values = tiny("", "")["backbone"] | {"weights": "$WEFT_TEST_WEIGHTS/model_base.pth"}
    torch.manual_seed(0)
    loaded = load_backbone(BackboneSection(**values), texts=lambda: ["one two", "three"])
    assert seen == [(loaded.model, str(tmp_path / "model_base.pth"))]
    assert loaded.transform.resample == "bicubic"
    assert loaded.transform.processor.image_mean[0] == pytest.approx(0.4815, abs=1e-4)


def test_a_second_stage_needs_a_matching_head():
    recipe = load_recipe("noto_emoji/retrieval_english", ["evaluation.rerank=4"])
    with pytest.raises(
        RunError, match=r"`evaluation\.rerank` must be 0 for a backbone without a matching head"
    ):
        check_fit(recipe, {})

"""The recipes of the papers' tables against what their scripts say, and what `paper: true` makes of them."""

import json
import re

import pytest
import torch

from weft.core import parse_method
from weft.train.cli.app import main
from weft.train.engine.trainer import decays
from weft.train.errors import RecipeError
from weft.train.recipe.files import built_in_recipes
from weft.train.recipe.loading import load_any, load_recipe
from weft.train.recipe.published import published_of
from weft.train.recipe.training import TrainingSection

VL_ADAPTER = [name for name in built_in_recipes() if name.startswith("vl_adapter/")]
ADAPTERS = ("single_adapter", "multiple_adapters", "half_shared_adapters")

# Image-text rates of BART are those of the authors' scripts, but for BitFit, which is VL-PET's; those of T5 are of
# Ladder Side-Tuning's scripts and of a study of robustness.
RATES = {
    "image/bart": dict.fromkeys(("multiple_adapters", "half_shared_adapters"), 3e-4)
    | {"full_finetuning": 1e-4},
    "image/t5": {
        "full_finetuning": 1e-4,
        "single_adapter": 3e-4,
        "single_lora": 3e-4,
        "multiple_lora": 3e-4,
        "single_prompt": 3e-3,
        "multiple_prompts": 3e-3,
        "bitfit": 3e-3,
    },
    "video/bart": {"full_finetuning": 3e-5},
}
RATES["video/t5"] = RATES["image/t5"]
USUAL = {"image/bart": 1e-3, "image/t5": 1e-3, "video/bart": 3e-4, "video/t5": 3e-4}
BATCHES = {
    "image/bart": {"vqa": 500, "gqa": 833, "nlvr": 166, "caption": 416},
    "image/t5": {"vqa": 300, "gqa": 500, "nlvr": 100, "caption": 250},
    "video/bart": dict.fromkeys(("tvqa", "how2qa", "tvc", "yc2c"), 50),
    "video/t5": dict.fromkeys(("tvqa", "how2qa", "tvc", "yc2c"), 30),
}


@pytest.mark.parametrize("name", VL_ADAPTER)
def test_a_recipe_of_vl_adapter_has_the_scripts_hyper_parameters(name):
    recipe = load_recipe(name)
    _, group, method = re.fullmatch(r"(vl_adapter)/(\w+/\w+)/(\w+)", name).groups()
    training = recipe.training
    assert training.learning_rate == RATES[group].get(method, USUAL[group])
    assert {task: section.batch_size for task, section in recipe.tasks.items()} == BATCHES[group]
    assert training.epochs == (20 if "image" in group else 7)
    assert (training.warmup, training.schedule, training.weight_decay) == (0.1, "linear", 0.01)
    assert (training.adam_betas, training.adam_epsilon) == ((0.9, 0.999), 1e-6)
    assert (training.max_grad_norm, training.accumulation, training.precision) == (5.0, 1, "fp32")
    assert training.mixing.strategy == "proportional"
    assert (recipe.seed, training.evaluate_every) == (9595, 0)
    prompted = "video" in group or method.startswith("single_") or method == "bitfit"
    assert all(bool(section.prompt) == prompted for section in recipe.tasks.values())
    if "image" in group:
        lengths = {task: section.max_text_tokens for task, section in recipe.tasks.items()}
        assert lengths == {"vqa": 20, "gqa": 20, "nlvr": 1024, "caption": 40}
        assert recipe.tasks["caption"].num_beams == 5


@pytest.mark.parametrize("name", VL_ADAPTER)
def test_a_recipe_of_vl_adapter_starts_as_the_authors_code_does(name):
    starts = {
        ("bottleneck", "bart"): "bert",
        ("bottleneck", "t5"): "torch",
        ("compacter", "bart"): "xavier",
        ("compacter", "t5"): "xavier",
        ("hyperformer", "bart"): "bert",
        ("hyperformer", "t5"): "t5",
    }
    backbone = name.split("/")[2]
    for config in parse_method(load_recipe(name).method):
        assert getattr(config, "init", None) == starts.get((config.method, backbone))


@pytest.mark.parametrize("name", VL_ADAPTER)
def test_the_papers_quirks_are_all_off_and_all_turned_on_by_one_word(name):
    plain, paper = load_recipe(name), load_recipe(name, ["paper=true"])
    assert not plain.training.decay_norms
    assert paper.training.decay_norms
    for task, section in paper.tasks.items():
        if task == "nlvr":
            continue
        own = plain.tasks[task]
        assert section.max_new_tokens == 19 < own.max_new_tokens
        captions, bart = task in ("caption", "tvc", "yc2c"), "/bart/" in name
        searched = captions or "video" in name
        assert (own.num_beams, section.num_beams) == (5 if captions else 1, 5 if searched else 1)
        assert (own.no_repeat_ngram_size, section.no_repeat_ngram_size) == (0, 3 if bart else 0)
        assert (own.early_stopping, section.early_stopping) == (False, bart and searched)
        misspelt = task == "gqa" and own.prompt
        assert section.prompt == ("gpa: " if misspelt else own.prompt)
    assert (paper.method, paper.seed) == (plain.method, plain.seed)


def test_a_fault_of_the_papers_settings_is_found_without_them():
    change = "paper_settings.training={decay_norm: true}"
    with pytest.raises(RecipeError, match=r"1 fault:\n.*paper_settings\.training\.decay_norm: unknown key"):
        load_recipe("vl_adapter/image/bart/single_adapter", [change])


def planned(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(["plan", *words, "--json"])
    assert left.value.code == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "trained"),
    [("coco", 19_520_132), ("flickr30k", 19_520_132), ("vqav2", 18_926_592 + 2 * 198_274)],
)
def test_the_released_configurations_train_what_was_counted(capsys, name, trained):
    assert planned(capsys, f"uniadapter/{name}", "paper=true")["trainable_parameters"] == trained
    recipe = load_recipe(f"uniadapter/{name}", ["paper=true"])
    assert recipe.training.learning_rate == (2e-5 if name == "vqav2" else 1e-5)


@pytest.mark.parametrize(
    ("name", "adapters"),
    [
        ("vision", 2_370_048 + 18_432),
        ("text", 2_370_048 + 18_432),
        ("cross", 2_370_048 + 18_432),
        ("no_query_residual", 4_766_208),
        ("no_frame_attention", 4_766_208),
        # A norm goes with every down-projection.
        ("nothing_shared", 7_110_144 + 3 * 18_432),
        ("up_shared", 4_732_416 + 3 * 18_432),
        ("everything_shared", 2_370_048 + 18_432),
        ("wide", 18_926_592),
    ],
)
def test_an_ablation_differs_from_its_base_by_the_method_alone(capsys, name, adapters):
    found = planned(capsys, f"uniadapter/ablation/{name}")
    assert found["components"]["uniadapter"] == adapters
    own, base = (load_recipe(f"uniadapter/{place}").model_dump() for place in (f"ablation/{name}", "msrvtt"))
    assert {key for key in own if own[key] != base[key]} == {"name", "label", "method"}


def test_every_table_of_published_numbers_is_known_and_shows_the_rows_of_the_method():
    found = {}
    for name in built_in_recipes():
        recipe = load_any(name)
        found[name] = published_of(recipe)
        assert recipe.published is not None or not name.startswith(
            ("vl_adapter/image", "tip_adapter", "xmadapter")
        )
    for method in (*ADAPTERS, "single_compacter", "multiple_compacters", "bitfit", "multiple_prompts"):
        assert found[f"vl_adapter/image/bart/{method}"], method
    (row,) = found["vl_adapter/image/t5/bitfit"]
    assert (row.percent, row.scores["vqa"]) == (0.83, 55.10)
    assert [row.scores for row in found["uniadapter/msrvtt"]] == [{"retrieval": 49.7}]
    assert [row.label for row in found["uniadapter/siblings/full_finetuning"]] == ["full fine-tuning"]
    assert [row.scores for row in found["tip_adapter/eurosat"]] == [
        {"eurosat": v} for v in (37.52, 70.54, 84.54)
    ]
    assert found["uniadapter/siblings/lora"] == []
    with pytest.raises(RecipeError, match=r"`published` must be one of .* Did you mean 'uniadapter_coco'"):
        published_of(load_recipe("uniadapter/coco", ["published=uniadaptr_coco"]))


@pytest.mark.parametrize(
    ("name", "shape", "norms", "biases"),
    [
        ("language_model.encoder.layers.0.fc1.weight", (4, 4), (True, True), (True, True)),
        ("language_model.encoder.layers.0.final_layer_norm.weight", (4,), (False, True), (False, False)),
        ("visual_embedding.norm.bias", (4,), (False, False), (False, True)),
        ("weft.bottleneck.text.encoder.0.ffn.down.bias.vqa", (4,), (False, False), (False, True)),
        # A task may be called anything.
        ("weft.bottleneck.text.encoder.0.ffn.norm.weight.bias", (4,), (False, True), (False, False)),
        (
            "weft.hyperformer.text.encoder.all.ffn.down.weight.offset.shared",
            (4,),
            (False, False),
            (False, True),
        ),
        ("weft.hyperformer.shared.all.task.vector.vqa", (4,), (False, True), (False, False)),
    ],
)
def test_what_decays_is_asked_of_the_parameter_and_not_of_the_task(name, shape, norms, biases):
    value = torch.zeros(shape)
    for key, expected in (("decay_norms", norms), ("decay_biases", biases)):
        for on, wanted in zip((False, True), expected, strict=True):
            section = TrainingSection(steps=1, learning_rate=1.0, **{key: on})
            assert decays(name, value, section) == wanted, (key, on)

"""PEFT's format on every family: what goes out comes back, and what PEFT made gives the outputs that PEFT gives."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.core import attach
from weft.core.adapted.merging import merge
from weft.core.backbone.resolving import resolve
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import CONFIG, WEIGHTS, export_peft, import_peft
from weft.core.testing import BACKBONES
from weft.core.testing.unit_contract import move_slots, move_trained
from weft.core.testing.vision_language import CASES

MODELS = BACKBONES | CASES
ALL = ["query", "key", "value", "output", "up", "down"]
METHODS = {
    "one": [{"method": "lora", "rank": 3, "alpha": 5, "linears": ALL}],
    "part of fused": [{"method": "lora", "rank": 2, "alpha": 3, "linears": ["query", "value"]}],
    "stabilised": [{"method": "lora", "rank": 3, "alpha": 7, "rank_stabilised": True, "linears": ALL}],
    "magnitude": [
        {"method": "lora", "rank": 2, "alpha": 3, "magnitude": True, "linears": ["query", "value", "down"]}
    ],
    "several": [
        {"method": "lora", "rank": 3, "alpha": 5, "linears": ["query", "value"]},
        {"method": "lora", "name": "more", "rank": 2, "alpha": 9, "linears": ["key", "up"]},
        {"method": "lora", "name": "first", "rank": 4, "linears": ["output"], "layers": [0]},
    ],
    "one on another": [
        {"method": "lora", "rank": 3, "alpha": 5, "linears": ["query", "value"]},
        {"method": "lora", "name": "more", "rank": 2, "alpha": 9, "linears": ["query"]},
    ],
    "mixed scales": [
        {"method": "lora", "rank": 3, "alpha": 5, "rank_stabilised": True, "linears": ["query"]},
        {"method": "lora", "name": "more", "rank": 3, "alpha": 5, "linears": ["value", "down"]},
    ],
    "outside the layers": [
        {"method": "lora", "rank": 3, "alpha": 5, "linears": ["query"]},
        {"method": "lora", "name": "more", "rank": 2, "alpha": 9, "linears": [], "components": "all"},
    ],
    "factors": [{"method": "ia3"}],
    "factors of two": [
        {"method": "ia3", "linears": ["key"]},
        {"method": "ia3", "name": "more", "linears": ["value", "down"], "layers": [1]},
    ],
}


def plain(name):
    torch.manual_seed(0)
    model, batch = MODELS[name]()
    return model.eval(), batch


def computed(model, batch):
    """Everything that a model returns, in one row."""
    with torch.no_grad():
        values = model(**batch).to_tuple()
    return torch.cat([value.float().flatten() for value in values if isinstance(value, torch.Tensor)])


def assert_equal(found, expected):
    """Equal up to a millionth of the largest value, which is what the order of float32 sums decides."""
    assert float((found - expected).abs().max()) <= 1e-6 * max(1.0, float(expected.abs().max()))


def trained(name, method, tasks=None):
    """A model whose units act in all of its towers, and none of which is the identity."""
    model, batch = plain(name)
    towers = [tower for tower in resolve(model).towers if has_maps(model, tower)]
    components = [site.role for site in resolve(model).maps]
    named = [{**one, "components": components} if "components" in one else one for one in method]
    configs = [{**one, "towers": towers} for one in named if one.get("linears") != [] or components]
    attach(model, configs, tasks)
    torch.manual_seed(1)
    move_trained(model, 0.1)
    return model, batch


def has_maps(model, tower):
    return any(site.role == "down" for site in resolve(model).sites if site.tower == tower)


def written(folder):
    words = json.loads((folder / CONFIG).read_text())
    return words, load_file(folder / WEIGHTS)


# One of every kind of structure: two stacks, two towers, fused and packed maps; the others are slow only by number.
SHORT = ("bart", "clip", "blip_caption", "qwen2_5_vl")


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize(
    "name", [name if name in SHORT else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_what_goes_out_comes_back_the_same(tmp_path, name, kind):
    model, batch = trained(name, METHODS[kind])
    export_peft(model, tmp_path / "first")
    other, _ = plain(name)
    before = computed(other, batch)
    import_peft(other, tmp_path / "first")
    expected = computed(model, batch)
    assert_equal(computed(other, batch), expected)
    assert not torch.allclose(before, expected, atol=1e-5)
    export_peft(other, tmp_path / "second")
    (words, tensors), (again, same) = written(tmp_path / "first"), written(tmp_path / "second")
    assert tensors.keys() == same.keys()
    assert all(torch.equal(tensors[key], same[key]) for key in tensors)
    assert scales(words, tensors) == pytest.approx(scales(again, same))


def scales(words, tensors):
    """The factor of each map, as PEFT works it out."""
    found = {}
    for key, value in tensors.items():
        if key.endswith(".lora_A.weight"):
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            fits = [pattern for pattern in words["alpha_pattern"] if re.match(rf"(.*\.)?({pattern})$", path)]
            alpha = words["alpha_pattern"][fits[0]] if fits else words["lora_alpha"]
            found[path] = alpha / value.shape[0] ** (0.5 if words["use_rslora"] else 1)
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("name", SHORT)
def test_peft_computes_what_several_units_do(tmp_path, name, kind):
    peft = pytest.importorskip("peft")
    model, batch = trained(name, METHODS[kind])
    export_peft(model, tmp_path)
    theirs = peft.PeftModel.from_pretrained(plain(name)[0], str(tmp_path)).eval()
    assert_equal(computed(theirs, batch), computed(model, batch))


# Every name of a query, and of maps beside it, in the families above.
QUERIES = r".*\.(q_proj|q|query|qkv)"
MAPS = r".*\.(q_proj|q|query|qkv|v_proj|v|value|fc2|wo|down_proj|linear_fc2|layer\.\d+\.output\.dense)"
THEIRS = {
    "stabilised": {"target_modules": MAPS, "use_rslora": True},
    "magnitude": {"target_modules": MAPS, "use_dora": True},
    "patterns": {
        "target_modules": MAPS,
        "rank_pattern": {r".*\.1\..*": 2, "v": 3},
        "alpha_pattern": {QUERIES: 7, "fc2": 2.5},
    },
    "one layer of a map": {"target_modules": rf"({QUERIES}|.*\.0\..*(v_proj|value|v|fc2|down_proj))"},
}


def from_peft(peft, name, folder, **options):
    """What PEFT computes with an adapter of its own making, which is saved."""
    base, batch = plain(name)
    config = peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **options)
    theirs = peft.get_peft_model(base, config).eval()
    theirs.save_pretrained(str(folder))
    return computed(theirs, batch), batch


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", THEIRS)
@pytest.mark.parametrize("name", MODELS)
def test_adapters_that_peft_made_give_its_outputs(tmp_path, name, kind):
    peft = pytest.importorskip("peft")
    expected, batch = from_peft(
        peft, name, tmp_path, **THEIRS[kind], exclude_modules=r".*vision_model\.head.*"
    )
    model, _ = plain(name)
    before = computed(model, batch)
    import_peft(model, tmp_path)
    assert_equal(computed(model, batch), expected)
    assert not torch.allclose(before, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in MODELS if name != "siglip"])
def test_adapters_of_all_linear_maps_give_their_outputs(tmp_path, name):
    peft = pytest.importorskip("peft")
    expected, batch = from_peft(peft, name, tmp_path, target_modules="all-linear")
    model, _ = plain(name)
    import_peft(model, tmp_path)
    assert_equal(computed(model, batch), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["bart", "t5", "visual_seq2seq", "blip2", "llava", "qwen3_vl", "gemma3"])
def test_adapters_of_the_map_onto_the_vocabulary_give_their_outputs(tmp_path, name):
    peft = pytest.importorskip("peft")
    target = r".*(lm_head|layers\.0\..*q_proj)"
    expected, batch = from_peft(peft, name, tmp_path, target_modules=target)
    model, _ = plain(name)
    import_peft(model, tmp_path)
    assert_equal(computed(model, batch), expected)
    assert "text.logits.lm_head" in {site.address for site in model.weft.plan.sites}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_maps_that_are_never_called_are_left_out_where_peft_did_not_train_them(tmp_path):
    peft = pytest.importorskip("peft")
    expected, batch = from_peft(peft, "siglip", tmp_path, target_modules="all-linear")
    model, _ = plain("siglip")
    with pytest.raises(
        CheckpointError, match=r"maps that are called, but adapts vision_model\.head\.attention\.out_proj"
    ):
        import_peft(model, tmp_path)
    _, tensors = written(tmp_path)
    tensors = {
        key: value * (not key.endswith("attention.out_proj.lora_B.weight")) for key, value in tensors.items()
    }
    save_file(tensors, tmp_path / WEIGHTS)
    import_peft(model, tmp_path)
    assert_equal(computed(model, batch), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_maps_that_no_family_names_are_told_all_at_once(tmp_path):
    peft = pytest.importorskip("peft")
    base, _ = plain("bert")
    base.first, base.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    config = peft.LoraConfig(target_modules=["query", "first", "second"])
    peft.get_peft_model(base, config).save_pretrained(str(tmp_path))
    model, _ = plain("bert")
    model.first, model.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    with pytest.raises(
        CheckpointError, match="that the family of the backbone names, but adapts first, second too"
    ):
        import_peft(model, tmp_path)
    assert not hasattr(model, "weft")


OLD = {
    "llava": ("model.language_model.", "language_model.model."),
    "qwen2_5_vl": ("model.language_model.", "model."),
    "paligemma": ("model.language_model.", "language_model.model."),
}


@pytest.mark.parametrize("name", OLD)
def test_keys_of_earlier_releases_of_transformers_are_read(tmp_path, name):
    method = [{"method": "lora", "rank": 3, "alpha": 5, "train_full": ["projector"]}]
    model, batch = plain(name)
    attach(model, method)
    move_trained(model, 0.1)
    export_peft(model, tmp_path)
    expected = computed(model, batch)
    _, tensors = written(tmp_path)
    now, then = OLD[name]
    old = {
        rename_old(key.replace(f"base_model.model.{now}", f"base_model.model.{then}")): value
        for key, value in tensors.items()
    }
    assert old.keys() != tensors.keys()
    save_file(old, tmp_path / WEIGHTS)
    other, _ = plain(name)
    import_peft(other, tmp_path)
    assert_equal(computed(other, batch), expected)


def test_scales_of_single_maps_are_found_under_old_names_too(tmp_path):
    now, then = OLD["llava"]
    model, batch = plain("llava")
    attach(model, [{**one, "towers": ["text"]} for one in METHODS["several"]])
    move_slots(model, 0.1)
    export_peft(model, tmp_path)
    words, tensors = written(tmp_path)
    save_file(
        {key.replace(f".{now}", f".{then}"): value for key, value in tensors.items()}, tmp_path / WEIGHTS
    )
    for patterns in (
        words["alpha_pattern"],
        {key.replace(now, then): value for key, value in words["alpha_pattern"].items()},
    ):
        (tmp_path / CONFIG).write_text(json.dumps({**words, "alpha_pattern": patterns}))
        other, _ = plain("llava")
        import_peft(other, tmp_path)
        assert_equal(computed(other, batch), computed(model, batch))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bart", {"target_modules": ["q_proj", "shared"]}, "alone, .* but holds .*shared.lora_embedding_A"),
        (
            "bert",
            {"target_modules": ["query", "word_embeddings"], "modules_to_save": ["pooler"]},
            "alone, .* but holds .*word_embeddings.lora_embedding_A",
        ),
        ("vit", {"target_modules": ["q_proj", "projection"]}, "but adapts .*projection too"),
    ],
    ids=["embeddings", "embeddings beside modules", "convolution"],
)
def test_maps_of_other_kinds_are_told(tmp_path, name, options, message):
    peft = pytest.importorskip("peft")
    from_peft(peft, name, tmp_path, **options)
    model, _ = plain(name)
    with pytest.raises(CheckpointError, match=message):
        import_peft(model, tmp_path)
    assert not hasattr(model, "weft")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_adapters_that_changed_the_backbone_are_told(tmp_path, start):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, init_lora_weights=start, target_modules=["q_proj"])
    peft.get_peft_model(plain("bart")[0], config).save_pretrained(str(tmp_path))
    with pytest.raises(CheckpointError, match=f"`init_lora_weights` is '{start}', which changed them"):
        import_peft(plain("bart")[0], tmp_path)


def rename_old(key):
    for part in ("multi_modal_projector", "visual"):
        key = key.replace(f"base_model.model.model.{part}", f"base_model.model.{part}")
    return key


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_old_keys_of_a_classifier_give_what_peft_gives(tmp_path):
    peft = pytest.importorskip("peft")
    expected, batch = from_peft(peft, "vit", tmp_path, target_modules=["q_proj", "v_proj"])
    _, tensors = written(tmp_path)
    changes = (("layers", "encoder.layer"), ("attention.q_proj", "attention.attention.query"))
    changes += (("attention.v_proj", "attention.attention.value"),)
    for new, old in changes:
        tensors = {key.replace(f".{new}.", f".{old}."): value for key, value in tensors.items()}
    save_file(tensors, tmp_path / WEIGHTS)
    theirs = peft.PeftModel.from_pretrained(plain("vit")[0], str(tmp_path)).eval()
    assert_equal(computed(theirs, batch), expected)
    model, _ = plain("vit")
    import_peft(model, tmp_path)
    assert_equal(computed(model, batch), expected)


def test_several_units_of_a_file_merge_into_the_backbone(tmp_path):
    model, batch = trained("qwen2_5_vl", METHODS["several"])
    export_peft(model, tmp_path)
    other, _ = plain("qwen2_5_vl")
    import_peft(other, tmp_path)
    assert [config.label for config in other.weft.plan.configs][:2] == ["lora", "lora_2"]
    assert merge(other).error < 1e-5
    assert_equal(computed(other, batch), computed(model, batch))


def test_several_units_with_norms_and_heads_come_back(tmp_path):
    model, batch = plain("bart")
    attach(model, [{**METHODS["several"][0], "train_full": ["norms", "biases"]}, *METHODS["several"][1:]])
    torch.manual_seed(1)
    move_trained(model, 0.1)
    export_peft(model, tmp_path)
    other, _ = plain("bart")
    import_peft(other, tmp_path)
    assert torch.equal(computed(other, batch), computed(model, batch))
    assert {"norms", "biases"} <= set(other.weft.plan.components)

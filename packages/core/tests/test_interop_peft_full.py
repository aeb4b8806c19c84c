"""What is trained in full beside a LoRA goes through PEFT's format: whole modules, and biases where they are."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file

from weft.core import attach
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import CONFIG, WEIGHTS, export_peft, import_peft
from weft.core.testing import BACKBONES
from weft.core.testing.unit_contract import move_trained, outputs
from weft.core.testing.vision_language import CASES

LORA = {"method": "lora", "rank": 2, "alpha": 6, "linears": ["query", "value"]}
# The words of VL-Adapter's LoRA on its composite, norms and heads elsewhere.
TRAINED = {
    "visual_seq2seq": ["visual_embedding", "biases"],
    "bart": ["norms", "biases"],
    "t5": ["norms"],
    "clip": ["projector"],
    "bert": ["head"],
    "vit": ["head"],
    "llava": ["projector"],
}


def plain(name):
    torch.manual_seed(0)
    model, batch = (BACKBONES | CASES)[name]()
    if name == "bert":
        model = transformers.BertForSequenceClassification(model.config)
    return model.eval(), batch


def trained(name, method, tasks=None):
    """An adapted model in which everything that is trained was moved."""
    model, batch = plain(name)
    attach(model, method, tasks)
    torch.manual_seed(1)
    move_trained(model, 0.1)
    return model, batch


@pytest.mark.parametrize("name", TRAINED)
def test_what_is_trained_in_full_comes_back_through_the_format(tmp_path, name):
    model, batch = trained(name, {**LORA, "train_full": TRAINED[name]}, ["vqa", "gqa"])
    export_peft(model, tmp_path, task="gqa")
    other, _ = plain(name)
    import_peft(other, tmp_path)
    assert other.weft.plan.components.keys() == model.weft.plan.components.keys()
    with torch.no_grad():
        assert torch.equal(outputs(other, batch), outputs(model, batch))


def test_factors_go_with_modules_and_two_configurations_with_one(tmp_path):
    for method in (
        {"method": "ia3", "train_full": ["norms"]},
        [LORA, {"method": "norms"}],
    ):
        model, batch = trained("bart", method)
        export_peft(model, tmp_path)
        other, _ = plain("bart")
        import_peft(other, tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TRAINED)
def test_peft_computes_the_same_with_what_was_trained_in_full(tmp_path, name):
    peft = pytest.importorskip("peft")
    model, batch = trained(name, {**LORA, "train_full": TRAINED[name]})
    export_peft(model, tmp_path)
    other, _ = plain(name)
    theirs = peft.PeftModel.from_pretrained(other, str(tmp_path)).eval()
    with torch.no_grad():
        expected = outputs(model, batch)
        torch.testing.assert_close(outputs(theirs, batch), expected, atol=1e-6, rtol=1e-6)
        with model.disable_adapter():  # the units matter beside it
            assert not torch.allclose(outputs(model, batch), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("bert", {"target_modules": ["query", "value"], "task_type": "SEQ_CLS"}),
        ("vit", {"target_modules": ["q_proj", "v_proj"], "modules_to_save": ["classifier"]}),
        ("bert", {"target_modules": ["query"], "bias": "all", "modules_to_save": ["classifier"]}),
        ("bart", {"target_modules": ["q_proj"], "bias": "all"}),
    ],
    ids=["classification", "head", "head and biases", "biases"],
)
def test_we_compute_the_same_as_peft_with_heads_and_biases(tmp_path, name, options):
    peft = pytest.importorskip("peft")
    base, batch = plain(name)
    theirs = peft.get_peft_model(base, peft.LoraConfig(r=3, init_lora_weights=False, **options)).eval()
    move_trained(theirs, 0.1)
    with torch.no_grad():
        expected = outputs(theirs, batch)
    theirs.save_pretrained(str(tmp_path))
    model, _ = plain(name)
    import_peft(model, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(outputs(model, batch), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "method", "message"),
    [
        ("bart", {**LORA, "train_full": ["embeddings"]}, "must not be tied .* but lm_head.weight is model"),
        (
            "clip",
            {**LORA, "train_full": ["logit_scale"]},
            "whole modules and biases .* but trains logit_scale",
        ),
        ("clip", {**LORA, "train_full": ["vision"]}, "leave out the maps .* but vision_model holds vision"),
        ("bart", {"method": "ia3", "train_full": ["biases"]}, r"not name biases beside ia3"),
    ],
    ids=["tied", "a parameter", "inside", "biases"],
)
def test_what_peft_cannot_copy_is_refused_and_nothing_is_written(tmp_path, name, method, message):
    model, _ = trained(name, method)
    with pytest.raises(CheckpointError, match=message):
        export_peft(model, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_modules_that_peft_would_confuse_are_refused(tmp_path):
    model, _ = plain("bert")
    model.pre_classifier = torch.nn.Linear(2, 2)
    attach(model, {**LORA, "train_full": ["head"]})
    with pytest.raises(
        CheckpointError, match="by the ends of their paths, but pre_classifier ends in classifier"
    ):
        export_peft(model, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda name: name.replace("classifier", "score"),
            "must save modules of the backbone, but saves score.bias",
        ),
        (
            lambda name: name.replace("classifier", "bert.embeddings.LayerNorm"),
            "words of `train_full` stand for, but saves bert.embeddings.LayerNorm",
        ),
    ],
    ids=["unknown", "no word"],
)
def test_modules_without_a_word_are_told(tmp_path, change, message):
    model, _ = trained("bert", {**LORA, "train_full": ["head"]})
    export_peft(model, tmp_path)
    rewrite(tmp_path / WEIGHTS, lambda name, value: (change(name), value))
    with pytest.raises(CheckpointError, match=message):
        import_peft(plain("bert")[0], tmp_path)


def test_modules_of_another_size_are_told(tmp_path):
    model, _ = trained("bert", {**LORA, "train_full": ["head"]})
    export_peft(model, tmp_path)
    rewrite(tmp_path / WEIGHTS, lambda name, value: (name, value[:1] if "classifier" in name else value))
    with pytest.raises(CheckpointError, match=r"must fit the backbone, but classifier.* is \(1,"):
        import_peft(plain("bert")[0], tmp_path)


def test_biases_that_the_configuration_does_not_announce_are_told(tmp_path):
    model, _ = trained("bart", {**LORA, "train_full": ["biases"]})
    export_peft(model, tmp_path)
    words = json.loads((tmp_path / CONFIG).read_text())
    assert words["bias"] == "all"
    (tmp_path / CONFIG).write_text(json.dumps({**words, "bias": "none"}))
    with pytest.raises(CheckpointError, match="must hold lora_A and lora_B alone"):
        import_peft(plain("bart")[0], tmp_path)


def rewrite(file, change):
    from safetensors.torch import save_file

    save_file(dict(change(name, value) for name, value in load_file(file).items()), file)

"""AdapterHub's format: adapters that the `adapters` library saved give the logits it computed.

The folder `data/adapterhub` was made once by its `make.py`.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.core import attach
from weft.core.errors import CheckpointError, ConfigError
from weft.core.files.interop.adapterhub import CONFIG, import_adapterhub
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import outputs
from weft.core.testing.vision_language import CASES

DATA = Path(__file__).parent / "data" / "adapterhub"
WEIGHTS = "adapter.safetensors"


def backbone(name):
    """The model that the adapters were trained on, its batch and the file."""
    golden = load_file(DATA / f"{name}.safetensors")
    model = CASES["bert"]()[0] if name == "bert" else tiny_backbone(name)[0]
    base = {key.removeprefix("base/"): value for key, value in golden.items() if key.startswith("base/")}
    missing, unexpected = model.load_state_dict(base, strict=False)
    tied = {key for key in model.state_dict() if "embed_tokens" in key or key.startswith("lm_head")}
    assert set(missing) <= tied
    assert not [key for key in unexpected if not key.endswith("position_ids")]
    batch = {key.removeprefix("batch/"): value for key, value in golden.items() if key.startswith("batch/")}
    return model.eval(), batch, golden


def computed(model, batch):
    with torch.no_grad():
        result = model(**batch)
        return result.last_hidden_state if "last_hidden_state" in result else outputs(model, batch)


@pytest.mark.parametrize("kind", ["seq_bn", "double_seq_bn"])
@pytest.mark.parametrize("name", ["bart", "t5", "bert", "clip"])
def test_imported_adapters_give_the_librarys_outputs(name, kind):
    model, batch, golden = backbone(name)
    plain = computed(model, batch)
    import_adapterhub(model, DATA / f"{name}_{kind}", task="mine")
    expected = golden[f"y/{kind}"]
    assert (plain - expected).abs().max() > 1e-3
    torch.testing.assert_close(computed(model, batch), expected, atol=1e-5, rtol=1e-5)
    stored = load_file(DATA / f"{name}_{kind}" / WEIGHTS)
    assert model.weft.plan.trainable_parameters == sum(value.numel() for value in stored.values())


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(DATA / "bart_double_seq_bn", tmp_path / "saved")
    return tmp_path / "saved"


def change_options(folder, **options):
    words = json.loads((folder / CONFIG).read_text())
    words["config"] |= options
    (folder / CONFIG).write_text(json.dumps(words))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_gating": True, "ln_before": True}, "but sets ln_before=True, use_gating=True"),
        ({"phm_layer": True}, "but sets phm_layer=True"),
        (
            {"non_linearity": "tanh"},
            "`non_linearity` of `folder` must be among the known names, but is 'tanh'",
        ),
    ],
    ids=["gate", "compacter", "activation"],
)
def test_adapters_that_compute_something_else_are_refused(folder, options, message):
    change_options(folder, **options)
    with pytest.raises(CheckpointError, match=message):
        import_adapterhub(tiny_backbone("bart")[0], folder)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (
            lambda name: name.replace("adapter_up", "adapter_out"),
            "must hold both halves of bottleneck adapters named",
        ),
        (
            lambda name: name.replace("layers.0", "layers.7"),
            r"a module of `folder` must be among the known names",
        ),
        (
            lambda name: None if "adapter_up.bias" in name else name,
            "must hold adapters of one bottleneck size",
        ),
        (lambda name: None if "encoder.layers.1.output" in name else name, "lacks text.encoder.1.ffn"),
    ],
    ids=["another tensor", "unknown layer", "a half missing", "uneven"],
)
def test_unfitting_tensors_are_told(folder, rename, message):
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(key): value for key, value in tensors.items() if rename(key)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        import_adapterhub(tiny_backbone("bart")[0], folder)


def test_other_folders_are_told(folder, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"`folder` must hold adapter_config\.json and adapter\.safetensors"
    ):
        import_adapterhub(tiny_backbone("bart")[0], tmp_path)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match="must hold a bottleneck adapter of the adapters library"):
        import_adapterhub(tiny_backbone("bart")[0], folder)


def test_the_stream_must_be_known():
    model, _ = CASES["llava"]()
    with pytest.raises(
        ConfigError, match="`placement` may be stream only where the family says which module"
    ):
        attach(model, {"method": "bottleneck", "bottleneck_size": 4, "placement": "stream"})


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_adapters_in_the_stream_start_as_the_backbone(name):
    model, batch = tiny_backbone(name)
    model.requires_grad_(False)
    expected = outputs(model, batch)
    method = {
        "method": "bottleneck",
        "bottleneck_size": 4,
        "placement": "stream",
        "init": "zero",
        "sharing": "multiple",
    }
    attach(model, method, ["vqa", "gqa"])
    with model.route(tasks=["vqa", None, "gqa", "gqa"]):
        assert torch.equal(outputs(model, batch), expected)

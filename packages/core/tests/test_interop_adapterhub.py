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
            "must hold both halves of every adapter and their biases, but .* lacks up.bias",
        ),
    ],
    ids=["another tensor", "unknown layer", "a half missing"],
)
def test_unfitting_tensors_are_told(folder, rename, message):
    tensors = load_file(folder / WEIGHTS)
    save_file({rename(key): value for key, value in tensors.items() if rename(key)}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=message):
        import_adapterhub(tiny_backbone("bart")[0], folder)


def test_adapters_of_a_size_for_each_layer_are_read_as_several_units(folder):
    """As a mapping of reduction factors gives them, or `leave_out`: what a layer lacks is the identity there."""
    tensors = load_file(folder / WEIGHTS)
    first, left = "encoder.layers.0.output", "decoder.layers.1.cross_attention"
    cut, zeros = {}, {}
    for key, value in tensors.items():
        half = 0 if "adapter_down" in key else value.dim() - 1
        small = first in key and not key.endswith("up.bias")
        zeros[key] = value.clone()
        if small:
            zeros[key].narrow(half, 2, value.shape[half] - 2).zero_()
        if left in key:
            zeros[key].zero_()
        else:
            cut[key] = (value.narrow(half, 0, 2) if small else value).contiguous()
    save_file(zeros, folder / WEIGHTS)
    expected_model, batch, _ = backbone("bart")
    import_adapterhub(expected_model, folder)
    save_file(cut, folder / WEIGHTS)
    model, _, _ = backbone("bart")
    import_adapterhub(model, folder)
    torch.testing.assert_close(computed(model, batch), computed(expected_model, batch), atol=1e-6, rtol=1e-6)
    assert model.weft.plan.trainable_parameters == sum(value.numel() for value in cut.values())
    assert len(model.weft.plan.configs) > 1
    assert len({config.bottleneck_size for config in model.weft.plan.configs}) == 2


def test_adapters_of_another_backbone_are_told(folder):
    tensors = load_file(folder / WEIGHTS)
    save_file(
        {key: value[:-1] if "up.weight" in key else value for key, value in tensors.items()}, folder / WEIGHTS
    )
    model, _, _ = backbone("bart")
    with pytest.raises(CheckpointError, match=r"must fit the backbone, but up\.weight of .* is \(15, "):
        import_adapterhub(model, folder)
    assert not hasattr(model, "weft")


def test_other_folders_are_told(folder, tmp_path):
    with pytest.raises(
        CheckpointError, match=r"`folder` must hold adapter_config\.json and adapter\.safetensors"
    ):
        import_adapterhub(tiny_backbone("bart")[0], tmp_path)
    save_file({}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="`folder` must hold some adapter"):
        import_adapterhub(tiny_backbone("bart")[0], folder)
    (folder / CONFIG).write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(CheckpointError, match="must hold a bottleneck adapter of the adapters library"):
        import_adapterhub(tiny_backbone("bart")[0], folder)


def test_the_stream_must_be_known():
    model, _ = CASES["llava"]()
    with pytest.raises(
        ConfigError, match="`method` 'bottleneck' must have a module that holds the residual stream"
    ):
        attach(model, {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "placement": "stream"})


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

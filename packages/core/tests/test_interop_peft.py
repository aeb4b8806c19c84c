"""PEFT's format: what we write loads there with equal logits, and the other way round."""

import json

import pytest
import torch

from weft.core import attach
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import CONFIG, export_peft, import_peft
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs
from weft.core.testing.vision_language import CASES

LORA = {"method": "lora", "rank": 2, "alpha": 6, "linears": ["query", "value", "down"]}
TASKS = ["vqa", "gqa"]


@pytest.mark.parametrize("stabilised", [False, True], ids=["lora", "rslora"])
def test_lora_comes_back_through_the_format(tmp_path, stabilised):
    method = {**LORA, "rank_stabilised": stabilised, "sharing": "multiple"}
    model, batch = adapted(method, "bart", TASKS)
    export_peft(model, tmp_path, task="gqa")
    other, _ = tiny_backbone("bart")
    import_peft(other, tmp_path, task="mine")
    with model.route(task="gqa"):
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "method",
    [LORA, {**LORA, "rank_stabilised": True}, {"method": "ia3"}],
    ids=["lora", "rslora", "ia3"],
)
@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_peft_loads_what_we_write(tmp_path, backbone, method):
    peft = pytest.importorskip("peft")
    model, batch = adapted({**method, "sharing": "multiple"}, backbone, TASKS)
    export_peft(model, tmp_path, task="gqa")
    other, _ = tiny_backbone(backbone)
    theirs = peft.PeftModel.from_pretrained(other, str(tmp_path)).eval()
    with model.route(task="gqa"):
        torch.testing.assert_close(outputs(theirs, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("backbone", ["bart", "clip"])
def test_factors_come_back_through_the_format(tmp_path, backbone):
    model, batch = adapted({"method": "ia3", "sharing": "multiple"}, backbone, TASKS, noise=0.3)
    export_peft(model, tmp_path, task="gqa")
    other, _ = tiny_backbone(backbone)
    import_peft(other, tmp_path, task="mine")
    with model.route(task="gqa"):
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


def test_one_stack_comes_back_alone(tmp_path):
    model, batch = adapted({**LORA, "stacks": ["decoder"]}, "bart", None)
    export_peft(model, tmp_path)
    other, _ = tiny_backbone("bart")
    import_peft(other, tmp_path)
    assert torch.equal(outputs(other, batch), outputs(model, batch))


THEIRS = [
    (
        "LoraConfig",
        {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False},
    ),
    (
        "IA3Config",
        {
            "target_modules": ["k_proj", "v_proj", "fc2"],
            "feedforward_modules": ["fc2"],
            "init_ia3_weights": False,
        },
    ),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "options"), THEIRS, ids=["lora", "ia3"])
def test_we_load_what_peft_writes(tmp_path, kind, options):
    peft = pytest.importorskip("peft")
    base, batch = tiny_backbone("bart")
    theirs = peft.get_peft_model(base, getattr(peft, kind)(**options)).eval()
    theirs.save_pretrained(str(tmp_path))
    model, _ = tiny_backbone("bart")
    import_peft(model, tmp_path)
    torch.testing.assert_close(outputs(model, batch), outputs(theirs, batch), atol=1e-6, rtol=1e-6)


def test_fused_maps_are_joined_into_one_of_a_higher_rank(tmp_path):
    torch.manual_seed(0)
    model, _ = CASES["blip_caption"]()
    attach(model, {"method": "lora", "rank": 2, "linears": ["query", "value"], "towers": ["vision"]})
    export_peft(model, tmp_path)
    words = json.loads((tmp_path / CONFIG).read_text())
    assert set(words["rank_pattern"].values()) == {4}
    assert set(words["alpha_pattern"].values()) == {4.0}


def change(folder, **words):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **words}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"peft_type": "VERA"}, r"must hold a LoRA or \(IA\)³ of PEFT, but its peft_type is 'VERA'"),
        (
            {"use_dora": True, "rank_pattern": {"q_proj": 3}},
            "must hold plain maps of one rank, but sets rank_pattern, use_dora",
        ),
    ],
    ids=["another kind", "options"],
)
def test_what_is_no_plain_lora_is_not_read(tmp_path, words, message):
    model, _ = adapted(LORA, "bart", None)
    export_peft(model, tmp_path)
    change(tmp_path, **words)
    other, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=message):
        import_peft(other, tmp_path)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda name: name.replace("lora_B", "lora_magnitude"), "must hold lora_A and lora_B alone"),
        (lambda name: name.replace("q_proj", "q_prj"), r"a module of `folder` must be .* Did you mean"),
        (lambda name: None if "lora_B" in name else name, "must hold both halves of"),
        (
            lambda name: None if "layers.1.fc2" in name else name,
            "must adapt the same maps in every chosen layer",
        ),
    ],
    ids=["another half", "unknown module", "one half", "uneven"],
)
def test_unfitting_tensors_are_told(tmp_path, rename, message):
    from safetensors.torch import load_file, save_file

    model, _ = adapted(LORA, "bart", None)
    export_peft(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({rename(name): value for name, value in load_file(file).items() if rename(name)}, file)
    other, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=message):
        import_peft(other, tmp_path)


def test_factors_of_the_wrong_side_are_told(tmp_path):
    from safetensors.torch import load_file, save_file

    model, _ = adapted({"method": "ia3"}, "bart", None)
    export_peft(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({name: value.T if "fc2" in name else value for name, value in load_file(file).items()}, file)
    other, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match=r"must scale the input of .*fc2, which is .* scales its output"
    ):
        import_peft(other, tmp_path)


def test_an_empty_folder_is_told(tmp_path):
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"adapter_config.json and adapter_model.safetensors is not in"):
        import_peft(model, tmp_path)


@pytest.mark.parametrize(
    ("method", "task", "message"),
    [
        (
            {"method": "bottleneck", "bottleneck_size": 4},
            None,
            "one unit of method lora or ia3 .* but has bottleneck",
        ),
        ({**LORA, "sharing": "multiple"}, None, "`task` must be given, because PEFT's format holds one task"),
        ({**LORA, "sharing": "multiple"}, "vqaa", r"`task` must be .* Did you mean 'vqa'"),
    ],
    ids=["another unit", "no task", "unknown task"],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path, method, task, message):
    model, _ = adapted(method, "bart", TASKS)
    with pytest.raises(CheckpointError, match=message):
        export_peft(model, tmp_path, task=task)
    plain, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match="must have units, but has none"):
        export_peft(plain, tmp_path)

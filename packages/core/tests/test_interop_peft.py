"""PEFT's format: what we write loads there with equal logits, and the other way round."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from weft.core import attach
from weft.core.errors import CheckpointError
from weft.core.files.interop.peft import CONFIG, WEIGHTS, export_peft, import_peft
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, move_slots, outputs
from weft.core.testing.vision_language import CASES

LORA = {"method": "lora", "rank": 2, "alpha": 6, "linears": ["query", "value", "down"]}
VERA = {"method": "vera", "rank": 5, "start": 0.3, "linears": ["query", "down"]}
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
    [LORA, {**LORA, "rank_stabilised": True}, {"method": "ia3"}, VERA],
    ids=["lora", "rslora", "ia3", "vera"],
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


@pytest.mark.parametrize(("linears", "configurations"), [(["query", "down"], 1), (["value"], 1)])
def test_vectors_and_their_matrices_come_back_through_the_format(tmp_path, linears, configurations):
    method = {**VERA, "linears": linears, "sharing": "multiple"}
    model, batch = adapted(method, "bart", TASKS, noise=0.3)
    export_peft(model, tmp_path, task="gqa")
    other, _ = tiny_backbone("bart")
    import_peft(other, tmp_path, task="mine")
    (config,) = other.weft.plan.configs
    assert (config.rank, config.start, config.linears) == (5, 0.3, tuple(linears))
    with model.route(task="gqa"):
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


def test_vectors_of_maps_that_no_words_choose_at_once_come_back(tmp_path):
    model, batch = adapted(VERA, "bart", None, noise=0.3)
    export_peft(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    gone = [
        name for name in tensors if "decoder.layers.1.self_attn" in name or "encoder.layers.0.fc2" in name
    ]
    assert gone
    for name in gone:
        if name.endswith("vera_lambda_b"):
            tensors[name].zero_()
    save_file(tensors, tmp_path / WEIGHTS)
    whole, _ = tiny_backbone("bart")
    import_peft(whole, tmp_path)
    for name in gone:
        del tensors[name]
    save_file(tensors, tmp_path / WEIGHTS)
    other, _ = tiny_backbone("bart")
    import_peft(other, tmp_path)
    assert len(other.weft.plan.configs) > 1
    torch.testing.assert_close(outputs(other, batch), outputs(whole, batch), atol=1e-6, rtol=1e-6)


def test_vera_that_peft_computes_otherwise_is_refused(tmp_path):
    model, _ = CASES["blip_caption"]()
    attach(model, {**VERA, "linears": ["query"], "towers": ["vision"]})
    with pytest.raises(CheckpointError, match=r"one pair of matrices .* is part of a fused map"):
        export_peft(model, tmp_path)
    model, _ = adapted({**VERA, "sharing": {"projection": ["task"]}}, "bart", None)
    with pytest.raises(CheckpointError, match=r"one pair of matrices .* some maps have a pair of their own"):
        export_peft(model, tmp_path)
    model, _ = adapted(VERA, "bart", None)
    export_peft(model, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    del tensors["base_model.vera_B"]
    save_file(tensors, tmp_path / WEIGHTS)
    other, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match=r"lacks base_model\.vera_B\. Save it with PEFT's `save_projection=True`"
    ):
        import_peft(other, tmp_path)


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
    ("VeraConfig", {"r": 3, "target_modules": ["q_proj", "fc2"], "d_initial": 0.4, "vera_dropout": 0.1}),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "options"), THEIRS, ids=["lora", "ia3", "vera"])
def test_we_load_what_peft_writes(tmp_path, kind, options):
    peft = pytest.importorskip("peft")
    base, batch = tiny_backbone("bart")
    theirs = peft.get_peft_model(base, getattr(peft, kind)(**options)).eval()
    for name, value in theirs.named_parameters():
        if "vera_lambda_b" in name:  # it starts at zero, whatever is asked for
            torch.nn.init.normal_(value)
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
        (
            {"peft_type": "LOHA"},
            r"must hold a LoRA, an \(IA\)³ or a VeRA of PEFT, but its peft_type is 'LOHA'",
        ),
        (
            {"lora_bias": True, "alora_invocation_tokens": [3]},
            "compute on linear maps, but sets alora_invocation_tokens, lora_bias",
        ),
        ({"new_option": 3}, "but sets new_option"),
        (
            {"init_lora_weights": "pissa_niter_4"},
            "`init_lora_weights` is 'pissa_niter_4', which changed them",
        ),
        ({"use_dora": True}, "must hold both halves of .*, but lacks lora_magnitude_vector"),
        (
            {"alpha_pattern": {"q_proj": 0}},
            "must scale its updates by a positive number, but the alpha of .* is 0",
        ),
        (
            {"alpha_pattern": {"q_proj(": 3}},
            r"regular expressions in `alpha_pattern`, but 'q_proj\(' is none",
        ),
        ({"alpha_pattern": [["q_proj", 3]]}, "must have a mapping from names as `alpha_pattern`"),
        ({"modules_to_save": 3}, "must have a list of names as `modules_to_save` in its settings, but has 3"),
        ({"bias": ["all"]}, r"must have a word as `bias` in its settings, but has \['all'\]"),
        ({"lora_alpha": "8"}, "must scale its updates by a positive number, but the alpha of .* is '8'"),
        ({"lora_dropout": 2}, "must hold settings that a unit can have, but the method is wrong"),
    ],
    ids=[
        "another kind",
        "options",
        "unknown option",
        "changed weights",
        "length",
        "alpha",
        "pattern",
        "patterns",
        "modules",
        "bias",
        "word",
        "dropout",
    ],
)
def test_what_our_units_do_not_compute_is_not_read(tmp_path, words, message):
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
    ],
    ids=["another half", "unknown module", "one half"],
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


def test_maps_of_another_size_are_told(tmp_path):
    from safetensors.torch import load_file, save_file

    model, _ = adapted(LORA, "bart", None)
    export_peft(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    cut = {name: value[:, :3] if "fc2.lora_A" in name else value for name, value in load_file(file).items()}
    save_file({name: value.contiguous() for name, value in cut.items()}, file)
    other, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match=r"must fit the backbone, but lora_A of .*fc2 is \(2, 3\) in the file"
    ):
        import_peft(other, tmp_path)
    assert not hasattr(other, "weft")


def test_a_file_without_maps_is_told(tmp_path):
    from safetensors.torch import save_file

    model, _ = adapted(LORA, "bart", None)
    export_peft(model, tmp_path)
    save_file({}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="must hold lora_A and lora_B of some map"):
        import_peft(tiny_backbone("bart")[0], tmp_path)


def test_maps_that_a_layer_lacks_become_a_unit_beside_the_others(tmp_path):
    from safetensors.torch import load_file, save_file

    model, batch = adapted(LORA, "bart", None)
    export_peft(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    kept = {name: value for name, value in load_file(file).items() if "layers.1.fc2" not in name}
    save_file(kept, file)
    other, _ = tiny_backbone("bart")
    import_peft(other, tmp_path)
    assert [config.label for config in other.weft.plan.configs] == ["lora", "lora_2"]
    with torch.no_grad():
        for unit in model.weft.plan.units:
            if unit.site.path.endswith("layers.1.fc2"):
                model.weft.banks_by_key[unit.banks["up.weight"]].slot_of("default").zero_()
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"dropout": 0.1}, r"`dropout` must be the same in all units .* but is 0\.0 and 0\.1"),
        ({"magnitude": True}, "`magnitude` must be the same in all units .* but is False and True"),
    ],
    ids=["dropout", "magnitude"],
)
def test_units_that_peft_could_not_tell_apart_are_not_written(tmp_path, second, message):
    model, _ = adapted([LORA, {**LORA, "name": "more", "linears": ["key"], **second}], "bart", None)
    with pytest.raises(CheckpointError, match=message):
        export_peft(model, tmp_path / "peft")
    assert not (tmp_path / "peft").exists()


def test_two_magnitudes_at_a_map_are_not_written(tmp_path):
    dora = {**LORA, "magnitude": True}
    model, _ = adapted([dora, {**dora, "name": "more"}], "bart", None)
    with pytest.raises(CheckpointError, match=r"one unit at a map with `magnitude` .* has several"):
        export_peft(model, tmp_path / "peft")


@pytest.mark.parametrize(
    "words",
    [
        "[3]",
        "[" * 100_000,
        '{"a": [["b", 1e999]]}',
        "{",
        '{"vision_model.encoder.layers.0.self_attn.qkv": [["query", 9]]}',
    ],
)
def test_what_another_program_says_of_fused_maps_is_no_harm(tmp_path, words):
    from safetensors.torch import load_file, save_file

    from weft.core.files.interop.peft_reading import ROLES

    torch.manual_seed(0)
    model, batch = CASES["blip_caption"]()
    attach(
        model.eval(),
        {"method": "lora", "rank": 2, "linears": ["query", "value"], "towers": ["vision"]},
    )
    move_slots(model, 0.1)
    export_peft(model, tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file(load_file(file), file, {ROLES: words})
    torch.manual_seed(0)
    other, _ = CASES["blip_caption"]()
    import_peft(other.eval(), tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(outputs(other, batch), outputs(model, batch), atol=1e-6, rtol=1e-6)


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
            "units of method lora alone, ia3 alone, or vera alone, .* but has bottleneck",
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
    with pytest.raises(CheckpointError, match="must have units, but it has none"):
        export_peft(plain, tmp_path)

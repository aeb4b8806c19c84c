"""Checkpoints: strict, atomic, keyed by addresses, and refused on another backbone."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from weft.core import attach, load_adapter
from weft.core.errors import CheckpointError
from weft.core.files.saving import CONFIG, WEIGHTS, adapter_state
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import HALF_SHARED, adapted, outputs

TASKS = ["vqa", "gqa"]


@pytest.fixture
def saved(tmp_path):
    model, _ = adapted(HALF_SHARED, "bart", TASKS)
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_checkpoint_is_two_files_keyed_by_addresses(saved):
    assert sorted(path.name for path in saved.iterdir()) == [WEIGHTS, CONFIG]
    keys = set(load_file(saved / WEIGHTS))
    assert {
        "bottleneck.text.decoder.1.cross_attention.down.weight.vqa",
        "bottleneck.text.decoder.1.cross_attention.up.bias.shared",
        "full.text.encoder.0.self_attn_layer_norm.weight",
    } <= keys
    config = json.loads((saved / CONFIG).read_text())
    assert set(config["tensors"]) == keys
    assert config["tasks"] == TASKS
    with safe_open(saved / WEIGHTS, "pt") as file:
        assert file.metadata()["tasks"] == "vqa,gqa"


def test_what_is_trained_in_full_comes_back(tmp_path):
    model, batch = adapted({"method": "full"}, "bart", None)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.01)
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    assert torch.equal(outputs(load_adapter(other, tmp_path), batch), outputs(model, batch))


def test_loading_into_an_adapted_model(saved):
    model, batch = adapted(HALF_SHARED, "bart", TASKS)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.zero_()
    load_adapter(model, saved)
    other, _ = tiny_backbone("bart")
    load_adapter(other, saved)
    with model.route(task="gqa"), other.route(task="gqa"):
        assert torch.equal(outputs(model, batch), outputs(other, batch))


def test_one_task_into_an_adapted_model_leaves_the_others(saved):
    model, _ = adapted(HALF_SHARED, "bart", TASKS)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.zero_()
    load_adapter(model, saved, tasks=["gqa"])
    slots = dict(model.weft.banks_by_key["bottleneck.text.encoder.0.ffn.down.weight"].named_parameters())
    assert not slots["vqa"].any()
    assert slots["gqa"].any()


def rewrite(folder, change):
    state = load_file(folder / WEIGHTS)
    change(state)
    save_file(state, folder / WEIGHTS)


def test_every_wrong_key_is_listed_at_once(saved):
    key = "bottleneck.text.encoder.0.ffn.{}"

    def change(state):
        state.pop(key.format("down.weight.vqa"))
        state["bottleneck.text.encoder.9.ffn.down.weight.vqa"] = torch.zeros(1)
        state[key.format("up.bias.shared")] = torch.zeros(3)

    rewrite(saved, change)
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError) as caught:
        load_adapter(model, saved)
    lines = str(caught.value).splitlines()
    assert lines[1] == "missing: bottleneck.text.encoder.0.ffn.down.weight.vqa"
    assert lines[2] == "unexpected: bottleneck.text.encoder.9.ffn.down.weight.vqa"
    shapes = "is (3,) in the file and (16,) in the model"
    assert lines[3] == f"mis-shaped: bottleneck.text.encoder.0.ffn.up.bias.shared {shapes}"


def test_a_failed_load_changes_no_weight(saved):
    rewrite(saved, lambda state: state.pop("full.text.encoder.0.final_layer_norm.bias"))
    model, _ = adapted(HALF_SHARED, "bart", TASKS)
    before = {key: value.clone() for key, value in adapter_state(model).items()}
    with pytest.raises(CheckpointError, match=r"missing: full.text.encoder.0.final_layer_norm.bias"):
        load_adapter(model, saved)
    assert all(torch.equal(value, before[key]) for key, value in adapter_state(model).items())


def test_many_missing_keys_are_counted(saved):
    rewrite(saved, lambda state: [state.pop(key) for key in list(state) if ".decoder." in key])
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"missing: .* and \d+ more"):
        load_adapter(model, saved)


def test_another_structure_is_refused_with_both_fingerprints(saved):
    model, _ = tiny_backbone("t5")
    with pytest.raises(CheckpointError, match=r"its structure differ.*BartForCond.*T5ForCond"):
        load_adapter(model, saved)


def test_other_weights_are_refused_unless_told_otherwise(saved):
    model, _ = tiny_backbone("bart", seed=5)
    with pytest.raises(CheckpointError, match=r"its weights differ.*check_weights=False"):
        load_adapter(model, saved)
    load_adapter(model, saved, check_weights=False)


def test_a_backbone_in_bfloat16_is_the_same_backbone(saved):
    model, _ = tiny_backbone("bart")
    load_adapter(model.bfloat16(), saved)


def test_an_unknown_task_is_refused(saved):
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"'gq'. Did you mean 'gqa'"):
        load_adapter(model, saved, tasks=["gq"])
    attach(model, HALF_SHARED, TASKS)
    with pytest.raises(CheckpointError, match=r"'gq'. Did you mean 'gqa'"):
        load_adapter(model, saved, tasks=["gq"])


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"weft_config.json and adapter_model.safetensors is not in"):
        load_adapter(model, tmp_path)


def test_a_later_format_is_refused(saved):
    config = json.loads((saved / CONFIG).read_text())
    (saved / CONFIG).write_text(json.dumps({**config, "format": 99}))
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"of format 1, but .* is of format 99"):
        load_adapter(model, saved)


def test_a_plain_model_has_nothing_to_save():
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=r"`model` must have units, but it has none"):
        adapter_state(model)


def test_a_gathered_state_must_be_whole():
    model, _ = adapted(HALF_SHARED, "bart", TASKS)
    state = model.state_dict()
    assert adapter_state(model, state).keys() == adapter_state(model).keys()
    state.pop("weft.bottleneck.text.encoder.0.ffn.down.weight.vqa")
    with pytest.raises(CheckpointError, match=r"`state_dict` must hold every trained tensor, but lacks weft"):
        adapter_state(model, state)


def test_an_interrupted_save_leaves_the_old_file(saved, monkeypatch):
    before = (saved / WEIGHTS).read_bytes()
    model, _ = adapted(HALF_SHARED, "bart", TASKS, noise=0.5)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("weft.core.files.saving.save_file", fail)
    with pytest.raises(OSError, match=r"disk full"):
        model.save_pretrained(saved)
    assert (saved / WEIGHTS).read_bytes() == before
    assert sorted(path.name for path in saved.iterdir()) == [WEIGHTS, CONFIG]


def test_the_trainer_saves_the_adapter_alone(tmp_path):
    model, _ = adapted(HALF_SHARED, "bart", TASKS)
    options = {"is_main_process": True, "safe_serialization": True}
    model.save_pretrained(tmp_path, state_dict=model.state_dict(), **options)
    assert sorted(path.name for path in tmp_path.iterdir()) == [WEIGHTS, CONFIG]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((16, 4), float("nan")), r"is not finite in 64 of 64 places"),
        (torch.full((16, 4), float("-inf")), r"is not finite in 64 of 64 places"),
        (torch.zeros(16, 4, dtype=torch.complex64), r"is of complex numbers"),
        (torch.ones(16, 4, dtype=torch.bool), r"is torch.bool, where the model has torch.float32"),
        (torch.ones(16, 4, dtype=torch.int64), r"is torch.int64, where the model has torch.float32"),
        (torch.ones(16, 4).to(torch.float8_e4m3fn), r"is torch.float8_e4m3fn, in which nothing is trained"),
    ],
    ids=["nan", "infinity", "complex", "truth values", "whole numbers", "eight bits"],
)
def test_tensors_that_no_training_leaves_are_refused(saved, value, message):
    rewrite(saved, lambda state: state.update({"bottleneck.text.encoder.0.ffn.down.weight.vqa": value}))
    model, _ = tiny_backbone("bart")
    with pytest.raises(
        CheckpointError, match=rf"finite numbers of the model's kinds.*\n.*down.weight.vqa {message}"
    ):
        load_adapter(model, saved)
    assert not hasattr(model, "weft")


def test_an_adapter_comes_back_in_the_dtypes_it_was_saved_in(tmp_path):
    model, _ = tiny_backbone("bart")
    attach(model.bfloat16(), HALF_SHARED, TASKS, dtype=torch.bfloat16)
    model.save_pretrained(tmp_path)
    for dtype in (None, torch.float32):
        other, _ = tiny_backbone("bart")
        load_adapter(other.bfloat16(), tmp_path, dtype=dtype)
        assert {value.dtype for _, _, value in other.weft.slots()} == {dtype or torch.bfloat16}
        assert all(
            torch.equal(value.bfloat16(), saved)
            for (_, _, value), (_, _, saved) in zip(other.weft.slots(), model.weft.slots(), strict=True)
        )


def test_an_adapted_model_keeps_the_dtype_of_its_weights(tmp_path):
    model, _ = tiny_backbone("bart")
    attach(model, HALF_SHARED, TASKS, dtype=torch.bfloat16).save_pretrained(tmp_path)
    other, _ = adapted(HALF_SHARED, "bart", TASKS)
    load_adapter(other, tmp_path)
    assert {value.dtype for _, _, value in other.weft.slots()} == {torch.float32}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"must hold an object in weft_config.json, but .* holds a list"),
        ("null", r"must hold an object in weft_config.json, but .* holds a NoneType"),
        ('{"format": 1', r"is not JSON"),
        ("[" * 100_000, r"is not JSON"),
        (
            '{"format": 1}',
            r"`backbone` is not an object, `tasks` is not a list of names, `method` is not a method",
        ),
        (
            '{"format": 1, "backbone": {"structure": "a"}, "tasks": ["a", 1], "method": 3}',
            r"`backbone` lacks model_class, `backbone` lacks name, `backbone` lacks weights, `tasks` is not a list",
        ),
    ],
    ids=["list", "null", "cut", "deep", "no keys", "wrong keys"],
)
def test_settings_that_are_damaged_are_told(saved, text, message):
    (saved / CONFIG).write_text(text)
    model, _ = tiny_backbone("bart")
    with pytest.raises(CheckpointError, match=message):
        load_adapter(model, saved)

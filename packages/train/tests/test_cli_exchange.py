"""`weft export` and `weft import`: what goes out comes back with equal logits, and mistakes are told."""

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from weft.core import attach, load_adapter
from weft.core.testing import tiny_backbone
from weft.train.backbones.loading import load_backbone
from weft.train.cli import main
from weft.train.recipe.loading import load_recipe
from weft.train.runs.exchange import plain_model

LORA = {"method": "lora", "rank": 2, "linears": ["query", "down"], "sharing": "multiple"}
TASKS = ["vqa", "nlvr"]


def run(*words):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    return int(ended.value.code or 0)


def filled(model, method, tasks):
    torch.manual_seed(1)
    attach(model, method, tasks)
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * 0.1)
    return model


@pytest.fixture
def bart(tmp_path):
    """A saved BART, an adapter of two tasks beside it, and the batch."""
    model, batch = tiny_backbone("bart")
    model.save_pretrained(tmp_path / "bart")
    filled(model, LORA, TASKS).save_pretrained(tmp_path / "adapter")
    return tmp_path, model, batch


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_lora_goes_out_and_comes_back(bart, capsys):
    folder, model, batch = bart
    backbone = ("--backbone", folder / "bart")
    assert run("export", folder / "adapter", folder / "peft", "--task", "nlvr", *backbone) == 0
    words = json.loads((folder / "peft" / "adapter_config.json").read_text())
    assert (words["peft_type"], words["r"]) == ("LORA", 2)
    assert run("import", folder / "peft", folder / "back", "--task", "mine", *backbone) == 0
    count = sum(value.numel() for value in load_file(folder / "peft" / "adapter_model.safetensors").values())
    assert f"{count:,} parameters at 10 sites" in capsys.readouterr().out
    other = load_adapter(plain_model(str(folder / "bart")), folder / "back")
    assert other.weft.tasks == ("mine",)
    with model.route(task="nlvr"):
        torch.testing.assert_close(logits(other, batch), logits(model, batch), atol=1e-6, rtol=1e-6)


def test_tasks_that_share_nothing_get_a_folder_each(bart):
    folder = bart[0]
    assert run("export", folder / "adapter", folder / "peft", "--backbone", folder / "bart") == 0
    assert all((folder / "peft" / task / "adapter_config.json").is_file() for task in TASKS)


def test_the_adapter_of_a_run_knows_its_backbone(values, tmp_path):
    values["method"] = LORA
    folder = tmp_path / "run"
    folder.mkdir()
    recipe = load_recipe(values)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    model = filled(load_backbone(recipe.backbone).model, LORA, TASKS)
    model.save_pretrained(folder / "adapter")
    assert run("export", folder, tmp_path / "peft", "--task", "vqa") == 0
    assert run("import", tmp_path / "peft", tmp_path / "back", "--backbone", "miniature") == 0
    other = load_adapter(load_backbone(recipe.backbone).model, tmp_path / "back")
    ours, theirs = model.weft.banks_by_key, other.weft.banks_by_key
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[key].slot_of("default"), bank.slot_of("vqa")) for key, bank in ours.items())


def test_adapterhub_comes_in(tmp_path, capsys):
    model, batch = tiny_backbone("bart")
    model.save_pretrained(tmp_path / "bart")
    filled(model, {"method": "bottleneck", "init": "bert", "bottleneck_size": 4, "activation": "relu"}, None)
    kinds = {"attention": "attention", "cross_attention": "cross_attention", "ffn": "output"}
    tensors = {}
    for unit in model.weft.plan.units:
        words = unit.site.address.split(".")
        front = f"model.{words[1]}.layers.{words[2]}.{kinds[words[3]]}_adapters.adapters.mine"
        for ours, theirs in (("down", "adapter_down.0"), ("up", "adapter_up")):
            for kind in ("weight", "bias"):
                value = model.weft.banks_by_key[unit.banks[f"{ours}.{kind}"]].slot_of("default").detach()
                tensors[f"{front}.{theirs}.{kind}"] = (value.mT if value.dim() == 2 else value).contiguous()
    source = tmp_path / "hub"
    source.mkdir()
    save_file(tensors, source / "adapter.safetensors")
    options = {"non_linearity": "relu", "original_ln_before": False}
    (source / "adapter_config.json").write_text(json.dumps({"name": "mine", "config": options}))
    assert run("import", source, tmp_path / "back", "--backbone", tmp_path / "bart") == 0
    count = sum(value.numel() for value in tensors.values())
    assert f"{count:,} parameters at 10 sites" in capsys.readouterr().out
    other = load_adapter(plain_model(str(tmp_path / "bart")), tmp_path / "back")
    torch.testing.assert_close(logits(other, batch), logits(model, batch), atol=1e-6, rtol=1e-6)


def test_settings_that_are_no_json_are_told(bart, capsys):
    folder = bart[0]
    (folder / "hub").mkdir()
    (folder / "hub" / "adapter_config.json").write_bytes(b"\xd0{")
    assert run("import", folder / "hub", folder / "out", "--backbone", folder / "bart") == 2
    assert "`SOURCE` must hold whole files, but" in capsys.readouterr().err.replace("\n", " ")
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("export", "{}", "{}/out"), "`ADAPTER` must be the folder of a finished run or of a saved adapter"),
        (("export", "{}/adapter", "{}/out"), "`--backbone` must be given for an adapter without a recipe"),
        (
            ("export", "{}/adapter", "{}/out", "--backbone", "{}/bart", "--task", "nlvr2"),
            "Did you mean 'nlvr'",
        ),
        (
            ("export", "{}/adapter", "{}/out", "--backbone", "{}/nowhere"),
            "`--backbone` must be a folder or a hub id",
        ),
        (("import", "{}", "{}/out", "--backbone", "{}/bart"), "`SOURCE` must hold adapter_config.json"),
    ],
    ids=["no adapter", "no backbone", "unknown task", "no such backbone", "no source"],
)
def test_mistakes_are_told_and_nothing_is_written(bart, capsys, words, message):
    folder = bart[0]
    assert run(*(word.format(folder) for word in words)) == 2
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()

"""Methods of PEFT through its own code: equal to PEFT on the whole model, and in weft's plans and files."""

import json
import sys

import pytest
import torch

from weft.core import attach, load_adapter, plan
from weft.core.errors import ConfigError
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import adapted, outputs
from weft.core.testing.vision_language import CASES
from weft.core.unit.method import parse_method

peft = pytest.importorskip("peft")

KINDS = [
    {"peft_type": "LOHA", "r": 2, "alpha": 4},
    {"peft_type": "LOKR", "r": 2, "alpha": 4},
    {"peft_type": "OFT", "oft_block_size": 4},
    {"peft_type": "HRA", "r": 2},
    {"peft_type": "MISS", "r": 4},
    {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "use_dora": True},
    {"peft_type": "FOURIERFT", "n_frequency": 8},
]


def method(config, **changes):
    return {"method": "peft", "config": config, "linears": ["query", "down"], **changes}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # PEFT's
@pytest.mark.parametrize("config", KINDS, ids=[kind["peft_type"] for kind in KINDS])
def test_peft_on_the_whole_model_gives_the_same(config):
    model, batch = adapted(method(config), "bart", None, noise=0.1)
    options = {name: value for name, value in config.items() if name != "peft_type"}
    kind = peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[config["peft_type"]]
    base, _ = tiny_backbone("bart")
    theirs = peft.get_peft_model(base, kind(target_modules=["q_proj", "fc2"], **options)).eval()
    count = 0
    with torch.no_grad():
        for unit in model.weft.plan.units:
            layer = theirs.base_model.model.get_submodule(unit.site.path)
            tensors = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
            for name, value in tensors.items():
                ours = ".".join(word for word in name.split(".") if word != "default")
                if not name.startswith("base_layer.") and value.is_floating_point():
                    value.copy_(model.weft.banks_by_key[unit.banks[ours]].slot_of("default"))
                    count += value.numel() if value.requires_grad else 0
        torch.testing.assert_close(outputs(model, batch), outputs(theirs, batch), atol=1e-6, rtol=1e-6)
    assert count == model.weft.plan.trainable_parameters
    assert count == sum(value.numel() for value in theirs.parameters() if value.requires_grad)


def test_it_starts_where_peft_starts():
    model, batch = tiny_backbone("bart")
    model.requires_grad_(False)
    expected = outputs(model, batch)
    attach(model, method(KINDS[0]))
    assert torch.equal(outputs(model, batch), expected)
    assert any(value.any() for _, _, value in model.weft.slots())


def test_plans_need_no_weights_and_files_hold_the_tensors(tmp_path):
    with torch.device("meta"):
        blueprint, _ = CASES["llava"]()
    assert plan(blueprint, method(KINDS[1]), ["vqa", "gqa"]).trainable_parameters > 0
    model, batch = adapted(method(KINDS[0], sharing="multiple"), "bart", ["vqa", "gqa"])
    model.save_pretrained(tmp_path)
    other, _ = tiny_backbone("bart")
    load_adapter(other, tmp_path)
    with model.route(tasks=["vqa", "gqa", None, "gqa"]):
        expected = outputs(model, batch)
    with other.route(tasks=["vqa", "gqa", None, "gqa"]):
        assert torch.equal(outputs(other, batch), expected)
    assert json.loads((tmp_path / "weft_config.json").read_text())["method"][0]["config"] == KINDS[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"r": 2}, "`config` must name a method of PEFT as `peft_type`, but has None"),
        (
            {"peft_type": "LOHA", "target_modules": ["q"]},
            "must not say where the method acts, but sets target_modules",
        ),
        ({"peft_type": "LOHHA"}, r"`config.peft_type` must be .* Did you mean 'LOHA'"),
        ({"peft_type": "LOHA", "rr": 2}, r"an option of LOHA in `config` must be"),
        ({"peft_type": "LOHA", "r": 0}, "must be what PEFT takes for LOHA on single maps, but PEFT says"),
        (
            {"peft_type": "PROMPT_TUNING", "num_virtual_tokens": 3},
            "`config` must be what PEFT takes|an option of",
        ),
        ({"peft_type": "VERA", "r": 2}, "must be what PEFT takes for VERA on single maps"),
    ],
    ids=["no type", "targets", "unknown type", "unknown option", "rank 0", "prompts", "shared state"],
)
def test_what_peft_refuses_is_told(config, message):
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match=message):
        plan(model, method(config))


def test_parts_of_fused_maps_are_refused():
    model, _ = CASES["blip_caption"]()
    with pytest.raises(ConfigError, match="`method` 'peft' must have a linear map that is not fused"):
        plan(model, method(KINDS[0], towers=["vision"], linears=["query"]))


def test_without_peft_the_extra_is_named(monkeypatch):
    from weft.core.units import peft as unit

    unit._layer.cache_clear()
    monkeypatch.setitem(sys.modules, "peft", None)
    model, _ = tiny_backbone("bart")
    with pytest.raises(ConfigError, match=r"pip install peft"):
        plan(model, parse_method(method(KINDS[0])))

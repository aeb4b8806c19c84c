"""Units against outputs and input gradients of the VL-Adapter authors' own modules.

`data/vl_adapter.safetensors` was made once by running those modules on random weights in float32 on a CPU;
its keys are `TAG/param/ORIGINAL_NAME`, `TAG/y/TASK`, `TAG/dx/TASK` (gradient of the sum of squares of y) and
the input `x`.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from weft.core.adapted.bank import Bank, Store
from weft.core.adapted.module import SiteUnit
from weft.core.adapted.routing import route_names
from weft.core.backbone.sites import Site
from weft.core.backbone.wiring import Wiring
from weft.core.planning import slot_address
from weft.core.sharing import SHARED
from weft.core.units.bottleneck import BottleneckConfig
from weft.core.units.compacter import CompacterConfig
from weft.core.units.hyperformer import HyperformerConfig
from weft.core.units.lora import LoRAConfig
from weft.core.units.prompt import PromptConfig

GOLDEN = load_file(Path(__file__).parent / "data" / "vl_adapter.safetensors")
TASKS = ("vqa", "gqa", "nlvr", "caption")
WIDTH = 32
X = GOLDEN["x"]


def site(layer=0, block="ffn", role=""):
    return Site("text", "decoder", layer, block, Wiring("module"), WIDTH, WIDTH, role)


def unit_at(config, where, values):
    """The unit at a site, its slots set to `values(tensor name, task)`."""
    store = Store(TASKS, None)
    banks = {}
    for spec in config.tensors(where, None):
        axes = spec.axes(config.sharing)
        slots = (SHARED,) if "task" in axes else TASKS
        bank = Bank(slots, spec.shape, torch.float32, torch.device("cpu"), True)
        with torch.no_grad():
            for slot in slots:
                bank._parameters[slot].copy_(values(spec.name, "vqa" if slot == SHARED else slot))
        banks[spec.name] = bank
    return SiteUnit(store, where, config.build(where), banks, torch.nn.Identity())


def run(unit, x, tasks, base=None):
    unit.store.routing = route_names(list(tasks), TASKS, x.device)
    hook = unit.unit.beside if unit.unit.reads_source else unit.unit.after
    return hook(x if base is None else base, x, unit.weights(x))


def compare(unit, tag, base=lambda x: None):
    """One task at a time with the input's gradient, then all four tasks in one batch."""
    for task in TASKS:
        x = X.clone().requires_grad_()
        y = run(unit, x, [task] * len(x), base(x))
        y.square().sum().backward()
        torch.testing.assert_close(y, GOLDEN[f"{tag}/y/{task}"], atol=1e-6, rtol=1e-6)
        expected = GOLDEN[f"{tag}/dx/{task}"]
        assert (x.grad - expected).abs().max() <= 1e-6 * expected.abs().max()
    mixed = X.repeat(len(TASKS), 1, 1)
    rows = [task for task in TASKS for _ in range(len(X))]
    expected = torch.cat([GOLDEN[f"{tag}/y/{task}"] for task in TASKS])
    torch.testing.assert_close(run(unit, mixed, rows, base(mixed)), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("tag", "sharing"),
    [
        ("adapter_multiple", "multiple"),
        ("adapter_single", "single"),
        ("adapter_half_up", "half"),
        ("adapter_half_down", {"preset": "half", "shared": "down"}),
    ],
)
def test_adapters_of_every_sharing_scheme(tag, sharing):
    def values(name, task):
        half, kind = name.split(".")
        value = GOLDEN[f"{tag}/param/adapters.{task}.{half}_sampler.{kind}"]
        return value.T if kind == "weight" else value

    config = BottleneckConfig(reduction_factor=4, sharing=sharing)
    compare(unit_at(config, site(), values), tag)


@pytest.mark.parametrize("backward", ["factors", "identity"])
def test_a_shared_compacter_runs_on_its_factors(backward):
    """One slot for all tasks goes another way, through the factors; it gives what the matrices give."""

    def values(name, task):
        first, second = name.split(".")
        half, kind = (
            (second, "phm_rule")
            if first == "rule"
            else (first, {"left": "W_left", "right": "W_right", "bias": "b"}[second])
        )
        return GOLDEN[f"phm_rank1_n2/param/adapters.vqa.{half}_sampler.{kind}"]

    unit = unit_at(CompacterConfig(reduction_factor=4, divisions=2, rank=1), site(), values)
    rows = ["vqa"] * len(X) if backward == "factors" else ["vqa", *[None] * (len(X) - 1)]
    x = X.clone().requires_grad_()
    y = run(unit, x, rows)
    expected = GOLDEN["phm_rank1_n2/y/vqa"]
    if backward == "identity":
        expected = torch.cat([expected[:1], X[1:]])
    torch.testing.assert_close(y, expected, atol=1e-6, rtol=1e-6)
    y.square().sum().backward()
    gradient = GOLDEN["phm_rank1_n2/dx/vqa"]
    if backward == "identity":
        gradient = torch.cat([gradient[:1], 2 * X[1:]])
    assert (x.grad - gradient).abs().max() <= 1e-6 * gradient.abs().max()


@pytest.mark.parametrize("rank", [None, 1])
def test_compacters_full_and_factorised(rank):
    tag = "phm_full_n2" if rank is None else "phm_rank1_n2"
    names = {"weight": "W", "left": "W_left", "right": "W_right", "bias": "b"}

    def values(name, task):
        first, second = name.split(".")
        half, kind = (second, "phm_rule") if first == "rule" else (first, names[second])
        return GOLDEN[f"{tag}/param/adapters.{task}.{half}_sampler.{kind}"]

    config = CompacterConfig(reduction_factor=4, divisions=2, rank=rank, sharing="multiple")
    compare(unit_at(config, site(), values), tag)


def test_lora_on_a_linear_map():
    def values(name, task):
        letter = "A" if name.startswith("down") else "B"
        return GOLDEN[f"lora/param/lora_{letter}s.{task}"].T

    config = LoRAConfig(rank=6, alpha=12, sharing="multiple")
    unit = unit_at(config, site(block="attention", role="query"), values)
    weight, bias = GOLDEN["lora/param/weight"], GOLDEN["lora/param/bias"]
    compare(unit, "lora", lambda x: torch.nn.functional.linear(x, weight, bias))


def test_prompts_with_their_network():
    def values(name, task):
        layer, kind = {
            "table": ("0", "weight"),
            "inner.weight": ("1", "weight"),
            "inner.bias": ("1", "bias"),
            "outer.weight": ("3", "weight"),
            "outer.bias": ("3", "bias"),
        }[name]
        value = GOLDEN[f"prompt/param/prompts.{task}.prefix_embedding.{layer}.{kind}"]
        return value.T if name.endswith("r.weight") else value

    config = PromptConfig(length=5, hidden_size=20, sharing="multiple")
    unit = unit_at(config, site(layer=None, block="embedding"), values)
    for task in TASKS:
        y = run(unit, X, [task] * len(X), X[:, :0])
        torch.testing.assert_close(y, GOLDEN[f"prompt/y/{task}"], atol=1e-6, rtol=1e-6)
    y = run(unit, X, ["caption", "gqa"], X[:, :0])
    torch.testing.assert_close(y[0], GOLDEN["prompt/y/caption"][0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(y[1], GOLDEN["prompt/y/gqa"][1], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(
    ("block", "position"),
    [("ffn", "feed_forward"), ("attention", "self_attention"), ("cross_attention", "cross_attention")],
)
def test_generated_weights_of_the_hyper_network(layer, block, position):
    config = HyperformerConfig(reduction_factor=4, embedding_size=16, hidden_size=12, projected_size=8)

    def generator(half, kind):
        name = f"hyper/param/{position}_{half}_sampler_hyper_net.{kind}_generator.0"
        return GOLDEN[f"{name}.weight"], GOLDEN[f"{name}.bias"]

    def values(name, task):
        if name == "task.vector":
            return GOLDEN[f"hyper/param/task_to_embeddings.{task}"]
        if name == "layer.vector":
            return GOLDEN["hyper/param/layer_id_embeddings.weight"][layer]
        if name.startswith("projection.norm"):
            return GOLDEN[f"hyper/param/LayerNorm.{name.rpartition('.')[2]}"]
        if name.startswith("projection."):
            _, which, kind = name.split(".")
            number = {"inner": 0, "outer": 2}[which]
            value = GOLDEN[f"hyper/param/task_hypernet.task_embeding_generator.{number}.{kind}"]
            return value.T if kind == "weight" else value
        half, kind, what = name.split(".")
        matrix, offset = generator(half, kind)
        if kind == "weight":
            # The original lays a generated matrix out as (out, in), ours as (in, out).
            out, inner = (8, WIDTH) if half == "down" else (WIDTH, 8)
            matrix = matrix.view(out, inner, -1).transpose(0, 1).reshape(out * inner, -1)
            offset = offset.view(out, inner).T.reshape(-1)
        return matrix.T if what == "generator" else offset

    where = site(layer, block)
    unit = unit_at(config, where, values)
    unit.store.routing = route_names(["vqa"], TASKS, X.device)
    generated = unit.unit.generate(unit.weights(X[:1]))
    for row, task in enumerate(TASKS):
        for half in ("down", "up"):
            for kind in ("weight", "bias"):
                expected = GOLDEN[f"hyper/{task}/{layer}/{position}/{half}/{kind}"]
                found = generated[f"{half}.{kind}"][row]
                found = found.T if kind == "weight" else found
                torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_hyper_network_shares_as_the_paper_does():
    config = HyperformerConfig(reduction_factor=4)
    addresses = {
        spec.name: slot_address(site(3, "ffn"), spec, config.sharing)
        for spec in config.tensors(site(3, "ffn"), None)
    }
    assert addresses["task.vector"] == "shared.all"
    assert addresses["layer.vector"] == "text.decoder.3"
    assert addresses["projection.inner.weight"] == "text.decoder.all"
    assert addresses["up.weight.generator"] == "text.decoder.all.ffn"

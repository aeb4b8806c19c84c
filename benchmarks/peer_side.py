"""One side of `peers`: a library's method on a model of random weights.

`python -m benchmarks.peer_side LIBRARY METHOD SHAPE --tasks N`. Libraries are `weft`, `peft`, `adapters` (needs its own
environment), and the floor: `bare` is the frozen model with gradients flowing to its inputs, `products` the matrix
products of the method's units alone, `optimiser` AdamW over as many parameters. Every method has the same size
in every library; `trained` in the results says so.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure.results import versions
from benchmarks.measure.turns import Turns, saved_bytes
from benchmarks.peer_models import ROWS, SHAPES, loss_of

RANK, FACTOR, DIVISIONS = 8, 16, 4
SUB_LAYERS = ["attention", "ffn"]
ATTENTION = {
    "bart": ["q_proj", "v_proj"],
    "clip": ["q_proj", "v_proj"],
    "qwen": r".*language_model.*\.(q|v)_proj",
}
TOWER = {"bart": "text", "clip": "vision", "qwen": "text"}

Built = tuple[Any, dict[str, Any], Callable[[Path], Any] | None, Callable[[Path], Any] | None]


def weft(method: str, shape: str, tasks: list[str], model: Any, batch: dict[str, Any]) -> Built:
    """weft: `attach`, one task a row."""
    from weft.core import attach, load_adapter

    own: dict[str, dict[str, Any]] = {
        "lora": {"method": "lora", "rank": RANK},
        "bottleneck": {
            "method": "bottleneck",
            "reduction_factor": FACTOR,
            "blocks": SUB_LAYERS,
            "activation": "silu",
        },
        "compacter": {
            "method": "compacter",
            "reduction_factor": FACTOR,
            "divisions": DIVISIONS,
            "rank": 1,
            "tied_rule": True,
            "blocks": SUB_LAYERS,
        },
    }
    sharing: Any = "multiple" if len(tasks) > 1 else "single"
    if method == "compacter":
        sharing = {"rule": ["task", "layer"]}
    config = {**own[method], "towers": [TOWER[shape]], "sharing": sharing}
    attach(model, config, tasks)
    if len(tasks) > 1:
        numbers = torch.arange(rows_of(batch)) % len(tasks)
        batch = {**batch, "task_ids": numbers}
    return model, batch, model.save_pretrained, lambda folder: load_adapter(model, folder)


def peft(method: str, shape: str, tasks: list[str], model: Any, batch: dict[str, Any]) -> Built:
    """PEFT's LoRA."""
    from peft import LoraConfig, get_peft_model

    assert method == "lora", "the one method that both have"
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=ATTENTION[shape])
    made = get_peft_model(model, config, adapter_name=tasks[0])
    return made, batch, made.save_pretrained, lambda folder: made.load_adapter(folder / tasks[0], "again")


def adapters(method: str, shape: str, tasks: list[str], model: Any, batch: dict[str, Any]) -> Built:
    """AdapterHub's; several tasks by `MultiTask`, or by `BatchSplit` where the method is called so."""
    import adapters as library
    from adapters import CompacterConfig, DoubleSeqBnConfig, LoRAConfig
    from adapters.composition import BatchSplit, MultiTask

    configs: dict[str, Any] = {
        "lora": LoRAConfig(r=RANK),
        "bottleneck": DoubleSeqBnConfig(reduction_factor=FACTOR),
        "compacter": CompacterConfig(reduction_factor=FACTOR, phm_dim=DIVISIONS),
    }
    kind, _, way = method.partition("-")
    library.init(model)
    for task in tasks:
        model.add_adapter(task, config=configs[kind])
    if way == "split":
        model.train_adapter(BatchSplit(*tasks, batch_sizes=[rows_of(batch) // len(tasks)] * len(tasks)))
    elif len(tasks) > 1:
        model.train_adapter(MultiTask(*tasks))
        batch = {**batch, "task_ids": torch.arange(rows_of(batch)) % len(tasks)}
    else:
        model.train_adapter(tasks[0])
    return (
        model,
        batch,
        lambda folder: model.save_adapter(str(folder), tasks[0]),
        lambda folder: model.load_adapter(str(folder), load_as="again"),
    )


def bare(method: str, shape: str, tasks: list[str], model: Any, batch: dict[str, Any]) -> Built:
    """The frozen model; gradients flow to what it reads."""
    if shape == "clip":
        return model, {**batch, "pixel_values": batch["pixel_values"].requires_grad_()}, None, None
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(lambda module, given, made: made.requires_grad_())
    return model, batch, None, None


LIBRARIES = {"weft": weft, "peft": peft, "adapters": adapters, "bare": bare}


def rows_of(batch: dict[str, Any]) -> int:
    """Rows of a batch."""
    return len(batch["input_ids"] if "input_ids" in batch else batch["pixel_values"])


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its processor milliseconds."""
    start = time.process_time()
    made = call()
    return made, round(1e3 * (time.process_time() - start), 2)


def step_of(model: Any, batch: dict[str, Any]) -> Callable[[], Any]:
    """A training step with the `Trainer`'s fused AdamW, or passes forward and backward where nothing is trained."""
    trained = [value for value in model.parameters() if value.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4, fused=True) if trained else None

    def step() -> None:
        loss_of(model(**batch)).backward()
        if optimiser is not None:
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    return step


def facts_of(built: Built, attached: float) -> dict[str, Any]:
    """What is measured once: size, inference, bytes saved for the backward pass, saving and loading."""
    model, batch, save, load = built
    with saved_bytes() as saved:
        loss_of(model(**batch)).backward()
    model.zero_grad(set_to_none=True)
    model.eval()
    passes = []
    with torch.no_grad():
        for _ in range(3):
            passes.append(timed(lambda: model(**batch))[1])
    model.train()
    facts = {
        "trained": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "attach_ms": attached,
        "inference_ms": sorted(passes)[1],
        "saved_mib": round(saved[0] / 2**20, 1),
    }
    with tempfile.TemporaryDirectory() as name:
        if save is not None and load is not None:
            facts["save_ms"] = timed(lambda: save(Path(name)))[1]
            facts["load_ms"] = timed(lambda: load(Path(name)))[1]
    return facts


def products(method: str, sites: list[tuple[int, int, int]]) -> Callable[[], Any]:
    """The matrix products of a method's units alone, forward and backward, for sites of (tokens, in, out)."""
    made = []
    for tokens, wide, out in sites:
        size = RANK if method == "lora" else out // FACTOR
        x = torch.randn(tokens, wide, requires_grad=True)
        grad = torch.randn(tokens, out)
        factors = [torch.randn(wide, size, requires_grad=True), torch.randn(size, out, requires_grad=True)]
        made.append((x, grad, factors))

    def step() -> None:
        for x, grad, (down, up) in made:
            inner = x @ down
            (inner if method == "lora" else torch.nn.functional.silu(inner)).matmul(up).backward(grad)
            x.grad = down.grad = up.grad = None

    return step


def sites_of(method: str, shape: str, rows: int) -> list[tuple[int, int, int]]:
    """Tokens and widths of every site of a method, as weft's plan has them."""
    from weft.core import plan

    model, batch = SHAPES[shape](rows)
    config: dict[str, Any] = {"method": "lora", "rank": RANK}
    if method != "lora":
        config = {"method": "bottleneck", "reduction_factor": FACTOR, "blocks": SUB_LAYERS}
    tokens = rows * (197 if shape == "clip" else batch["input_ids"].shape[1])
    found = plan(model, {**config, "towers": [TOWER[shape]]})
    return [(tokens, site.in_width if method == "lora" else site.width, site.width) for site in found.sites]


def optimiser(method: str, shape: str) -> Callable[[], Any]:
    """AdamW alone, over the parameters that weft trains."""
    model, batch = SHAPES[shape](1)
    built, *_ = weft(method, shape, ["t0"], model, batch)
    trained = [value for value in built.parameters() if value.requires_grad]
    for value in trained:
        value.grad = torch.randn_like(value)
    made = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    return made.step


def main() -> None:
    """Build a side and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("library", choices=[*LIBRARIES, "products", "optimiser"])
    parser.add_argument("method")
    parser.add_argument("shape", choices=sorted(SHAPES))
    parser.add_argument("--tasks", type=int, default=1)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--length", type=int, default=32, help="tokens of a row, for bart")
    arguments = parser.parse_args()
    turns = Turns()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows = arguments.rows or ROWS[arguments.shape]
    if arguments.library == "products":
        turns.serve(products(arguments.method, sites_of(arguments.method, arguments.shape, rows)))
    if arguments.library == "optimiser":
        turns.serve(optimiser(arguments.method, arguments.shape))
    size = {"length": arguments.length} if arguments.shape == "bart" else {}
    model, batch = SHAPES[arguments.shape](rows, **size)
    model.requires_grad_(False).train()
    tasks = [f"t{number}" for number in range(arguments.tasks)]
    make = LIBRARIES[arguments.library]
    built, attached = timed(lambda: make(arguments.method, arguments.shape, tasks, model, batch))
    facts = facts_of(built, attached)
    found = versions("torch", "transformers", "peft", "adapters", "weft-core")
    turns.serve(step_of(built[0], built[1]), **facts, versions=found)


if __name__ == "__main__":
    main()

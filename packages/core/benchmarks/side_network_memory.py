"""Memory of training a vision tower by ladder side-tuning, against adapters and LoRA within it.

`python packages/core/benchmarks/side_network_memory.py` trains two steps of ViT-B/16 of random weights by each method
in a process of its own, and prints what it trains, what autograd keeps of a forward pass, and the peak of the process
(on a GPU, of the allocator).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from typing import Any

import torch
import transformers

from weft.core import attach

METHODS: dict[str, dict[str, Any]] = {
    "lst": {"method": "lst"},
    "lora": {"method": "lora", "rank": 32, "linears": ["query", "value"]},
    "adaptformer": {"method": "adaptformer", "bottleneck_size": 64},
    "vpt": {"method": "vpt", "length": 50},
    "full": {"method": "full"},
}
MIB = 2**20


def kept(model: Any, pixels: torch.Tensor) -> tuple[int, torch.Tensor]:
    """Bytes that autograd keeps of one forward pass beside parameters, and the loss."""
    own = {value.untyped_storage().data_ptr() for value in model.parameters()}
    found: dict[int, int] = {}

    def pack(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        loss = model(pixel_values=pixels).last_hidden_state[:, 0].square().mean()
    return sum(found.values()), loss


def measure(method: str, rows: int) -> dict[str, Any]:
    """Two training steps, and what they held."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = transformers.ViTModel(transformers.ViTConfig(), add_pooling_layer=False)
    model = attach(model, METHODS[method]).to(device).train()
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    pixels = torch.randn(rows, 3, 224, 224, device=device)
    for _ in range(2):
        optimizer.zero_grad()
        held, loss = kept(model, pixels)
        loss.backward()
        optimizer.step()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "trained": sum(value.numel() for value in trained),
        "kept MiB": held / MIB,
        "peak MiB": peak / MIB,
    }


def main() -> None:
    """Measure every method, one process for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=8, help="images in a batch")
    parser.add_argument("--method", choices=METHODS, help="measure this one here, and print JSON")
    options = parser.parse_args()
    if options.method:
        sys.stdout.write(json.dumps(measure(options.method, options.rows)) + "\n")
        return
    for method in METHODS:
        own = [sys.executable, __file__, "--rows", str(options.rows), "--method", method]
        output = subprocess.run(own, check=True, capture_output=True, text=True).stdout
        values = json.loads(output.strip().rpartition("\n")[2])
        sys.stdout.write(
            f"{method:12} trained {values['trained']:>11,}  kept {values['kept MiB']:8,.0f} MiB  "
            f"peak {values['peak MiB']:8,.0f} MiB\n"
        )
        sys.stdout.flush()


if __name__ == "__main__":
    main()

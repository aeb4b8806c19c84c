"""Memory of training contrast and matching with a momentum encoder of the adapters alone, against one of both towers.

`python packages/train/benchmarks/momentum_memory.py` trains two steps of BLIP-base of random weights with UniAdapter in
a process of its own for each way, and prints parameters held twice and peak memory: that of the process on a CPU, of
the allocator on a GPU. Keeping both towers is what the public code of UniAdapter does.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
from typing import Any

import torch

from weft.core import attach
from weft.core.composites import BlipRetrieval, BlipRetrievalConfig
from weft.train.objectives.image_text import ImageText
from weft.train.objectives.itc import itc_losses
from weft.train.objectives.itm import itm_losses
from weft.train.recipe.training import ContrastSection

WAYS = ("adapters", "towers")
ENCODE = 30523


def backbone(size: int) -> Any:
    """BLIP-base of random weights, with images of `size` pixels."""
    torch.manual_seed(0)
    text = {"num_attention_heads": 12, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    config = BlipRetrievalConfig(text_config=text, vision_config={"image_size": size}, encode_token_id=ENCODE)
    return BlipRetrieval(config)


class WholeTowers(ImageText):
    """The objective with a second model, moved whole in every step."""

    def __init__(self, model: Any, section: ContrastSection, rows: int) -> None:
        super().__init__(model, section, rows)
        self.momentum = torch.nn.Module()
        self.second = copy.deepcopy(model).requires_grad_(False)

    def _losses(self, model: Any, batch: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            for slow, own in zip(self.second.parameters(), model.parameters(), strict=True):
                slow.lerp_(own, 1 - self.section.momentum)
            slow_image = self.second.encode_video(batch["pixel_values"]).feature
            slow_text = self.second.encode_text(**texts)
        video, text = model.encode_video(batch["pixel_values"]), model.encode_text(**texts)
        features = (video.feature, text, slow_image, slow_text)
        contrast = itc_losses(*features, ids, self.queue, temperature=model.temp, alpha=0.4)
        match = itm_losses(model, texts, video, text, ids, temperature=model.temp)
        self.queue.push(slow_image, slow_text, ids)
        return contrast + match


def measure(way: str, rows: int, size: int) -> dict[str, Any]:
    """Two training steps, and what they held."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    unit = {"method": "uniadapter", "bottleneck_size": 128, "train_full": ["projector", "head"]}
    model = attach(backbone(size), unit).to(device)
    section = ContrastSection(queue_size=57600 // rows * rows)
    objective = (ImageText if way == "adapters" else WholeTowers)(model, section, rows).to(device)
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=1e-4)
    batch = {
        "input_ids": torch.randint(5, ENCODE, (rows, 35), device=device),
        "attention_mask": torch.ones(rows, 35, dtype=torch.long, device=device),
        "pixel_values": torch.randn(rows, 1, 3, size, size, device=device),
        "same_image": torch.arange(rows, device=device),
    }
    for _ in range(2):
        optimizer.zero_grad()
        objective.losses(model, batch, batch["same_image"]).mean().backward()
        optimizer.step()
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    held = objective.momentum.buffers() if way == "adapters" else objective.second.parameters()
    return {"way": way, "held twice": sum(value.numel() for value in held), "peak MiB": peak / 2**20}


def main() -> None:
    """Measure both ways, one process for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4, help="pairs in a batch")
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--way", choices=WAYS, help="measure this one here, and print JSON")
    options = parser.parse_args()
    if options.way:
        sys.stdout.write(json.dumps(measure(options.way, options.rows, options.size)) + "\n")
        return
    own = [sys.executable, __file__, "--rows", str(options.rows), "--size", str(options.size)]
    found = {}
    for way in WAYS:
        output = subprocess.run([*own, "--way", way], check=True, capture_output=True, text=True).stdout
        found[way] = json.loads(output.strip().rpartition("\n")[2])
        values = found[way]
        sys.stdout.write(
            f"{way:10} held twice {values['held twice']:>12,}  peak {values['peak MiB']:8,.0f} MiB\n"
        )
    saved = found["towers"]["peak MiB"] - found["adapters"]["peak MiB"]
    sys.stdout.write(f"saved {saved:,.0f} MiB ({saved / found['towers']['peak MiB']:.1%} of the peak)\n")


if __name__ == "__main__":
    main()

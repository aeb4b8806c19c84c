"""Write checkpoints under one release of transformers and check them under another; see the nox session.

`python across_releases.py write FOLDER`, then in another environment `python across_releases.py check FOLDER`. The
backbones go along, because releases draw random weights in different orders.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import load_file, save_file

from weft.core import attach, load_adapter
from weft.core.files.saving import adapter_state
from weft.core.testing import tiny_backbone
from weft.core.testing.unit_contract import HALF_SHARED
from weft.core.testing.vision_language import CASES

TASKS = ["vqa", "gqa"]
METHOD = [
    HALF_SHARED,
    {"method": "lora", "rank": 2, "linears": ["query", "value"], "sharing": "multiple"},
]
MODELS = {
    "bart": (transformers.BartForConditionalGeneration, ["text"]),
    "clip": (transformers.CLIPModel, ["text", "vision"]),
    "llava": (transformers.LlavaForConditionalGeneration, ["text", "vision"]),
}


def built(name: str) -> tuple[Any, dict[str, Any]]:
    """A tiny model and its batch."""
    torch.manual_seed(0)
    return CASES[name]() if name in CASES else tiny_backbone(name)


def computed(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    """Logits of the first task."""
    with torch.no_grad(), model.route(task=TASKS[0]):
        result = model(**batch)
    logits = getattr(result, "logits", None)
    found: torch.Tensor = result.logits_per_text if logits is None else logits
    return found


def write(folder: Path) -> None:
    """Write backbone, adapter, batch and logits of every model."""
    for name, (_, towers) in MODELS.items():
        model, batch = built(name)
        model.eval().save_pretrained(folder / name / "backbone")
        attach(model, [{**unit, "towers": towers} for unit in METHOD], TASKS)
        torch.manual_seed(1)
        with torch.no_grad():
            for value in model.parameters():
                if value.requires_grad:
                    value.add_(torch.randn_like(value) * 0.1)
        model.save_pretrained(folder / name / "adapter")
        tensors = {f"batch/{key}": value for key, value in batch.items() if isinstance(value, torch.Tensor)}
        saved = {f"state/{key}": value.clone() for key, value in adapter_state(model).items()}
        save_file(
            {**tensors, **saved, "logits": computed(model, batch)}, folder / name / "expected.safetensors"
        )
    print(f"transformers {transformers.__version__} wrote {', '.join(MODELS)}")


def check(folder: Path) -> None:
    """Load every adapter; tensors must be bit-equal, and logits equal within the rounding of other kernels."""
    for name, (cls, _) in MODELS.items():
        expected = load_file(folder / name / "expected.safetensors")
        model = cls.from_pretrained(folder / name / "backbone").eval()
        load_adapter(model, folder / name / "adapter")
        state = adapter_state(model)
        saved = {
            key.removeprefix("state/"): value for key, value in expected.items() if key.startswith("state/")
        }
        if state.keys() != saved.keys():
            raise SystemExit(f"{name}: keys differ: {sorted(state.keys() ^ saved.keys())[:5]}")
        unequal = [key for key, value in saved.items() if not torch.equal(value, state[key])]
        if unequal:
            raise SystemExit(f"{name}: {len(unequal)} of {len(saved)} tensors differ, such as {unequal[0]}")
        batch = {
            key.removeprefix("batch/"): value for key, value in expected.items() if key.startswith("batch/")
        }
        difference = float((computed(model, batch) - expected["logits"]).abs().max())
        if difference > 1e-5:
            raise SystemExit(f"{name}: logits differ by {difference}")
        print(f"{name}: {len(saved)} tensors bit-equal, logits within {difference:.1e}")
    print(f"transformers {transformers.__version__} read what the other release wrote")


if __name__ == "__main__":
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    {"write": write, "check": check}[sys.argv[1]](Path(sys.argv[2]))

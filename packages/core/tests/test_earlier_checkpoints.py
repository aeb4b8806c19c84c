"""What earlier code wrote still loads: each unit once, on backbones of every family, and each few-shot head.

`data/checkpoints` was written by this file as a script, with the code of commit 3f44269. Weights of backbones and slots
follow from names by whole-number arithmetic, so that they are the same under every release of torch and transformers.
"""

from __future__ import annotations

import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from weft.core import attach, load_adapter
from weft.core.composites import DualEncoder, DualEncoderConfig
from weft.core.testing import BACKBONES
from weft.core.testing.vision_language import CASES

FOLDER = Path(__file__).parent / "data" / "checkpoints"
TASKS = ["vqa", "gqa"]
SMALL = {"bottleneck_size": 4}
# Backbone and unit: what the unit is made with.
WRITTEN: dict[tuple[str, str], dict[str, Any]] = {
    ("bart", "bottleneck"): {**SMALL, "sharing": "half"},
    ("bert", "peft"): {"config": {"peft_type": "LOHA", "r": 2, "alpha": 4}, "sharing": "multiple"},
    ("blip2", "prefix"): {"length": 2, "sharing": "multiple"},
    ("blip_caption", "key_value_branch"): SMALL,
    ("blip_retrieval", "frame_attention"): {"train_full": ["norms"]},
    ("blip_retrieval", "uniadapter"): {**SMALL, "branches": ["text", "vision"], "core": True},
    ("blip_vqa", "bitfit"): {"layers": [0]},
    ("clip", "adaptformer"): {**SMALL, "sharing": "multiple"},
    ("clip", "mma"): {**SMALL, "sharing": "multiple"},
    ("dinov2", "convpass"): {**SMALL, "layers": [0], "sharing": "multiple"},
    ("dual_encoder", "lora"): {"rank": 2, "towers": ["text"], "train_full": ["norms"]},
    ("gemma3", "low_rank"): {**SMALL, "sharing": "multiple"},
    ("instructblip", "st_adapter"): {**SMALL, "frames": 1, "sharing": "multiple"},
    ("llava", "ia3"): {"sharing": "multiple"},
    ("llava_onevision", "norms"): {},
    ("paligemma", "full"): {"towers": ["vision"]},
    ("qwen2_5_vl", "lora"): {"rank": 2, "towers": ["text", "vision"], "sharing": "multiple"},
    ("qwen3_vl", "prompt"): {"length": 3, "hidden_size": 6, "sharing": "multiple"},
    ("siglip", "lora"): {"rank": 2, "magnitude": True, "layers": [1], "sharing": "multiple"},
    ("smolvlm", "lst"): {"reduction_factor": 4, "num_heads": 2, "sharing": "multiple"},
    ("t5", "compacter"): {**SMALL, "layers": [1], "sharing": "multiple"},
    ("visual_seq2seq", "hyperformer"): {
        **SMALL,
        "embedding_size": 6,
        "hidden_size": 5,
        "projected_size": 3,
        "layers": [0],
    },
    ("vit", "aim"): {**SMALL, "frames": 1, "sharing": "multiple"},
    ("vit", "frozen"): {"train_full": ["norms"]},
    ("vit", "vpt"): {"length": 2, "sharing": "multiple"},
}

QUICK = {"epochs": 2, "search_steps": (4, 3)}
HEADS: dict[str, dict[str, Any]] = {
    "ape": {"search_steps": (4, 3)},
    "ape_t": QUICK,
    "clip_adapter": {"epochs": 2},
    "cross_modal_probe": {"epochs": 2},
    "gda": {},
    "linear_probe": {},
    "lp_plus_plus": {"epochs": 10},
    "task_res": {"epochs": 2},
    "tip_adapter": {"search_steps": (4, 3)},
    "tip_adapter_f": QUICK,
    "xmadapter": QUICK,
    "zero_shot": {},
}


def numbers(name: str, shape: torch.Size, scale: float) -> Tensor:
    """Numbers between minus and plus half of `scale` that follow from a name."""
    index = torch.arange(shape.numel(), dtype=torch.int64)
    drawn = (index * 7919 + zlib.crc32(name.encode())) % 2003
    return ((drawn.double() / 2002 - 0.5) * scale).float().reshape(shape)


def _dual_encoder() -> tuple[Any, dict[str, Any]]:
    text, batch = CASES["bert"]()
    vision = transformers.ResNetConfig(
        embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic"
    )
    model = DualEncoder(DualEncoderConfig(text.config, vision, projection_size=8))
    return model, {**batch, "pixel_values": torch.zeros(2, 1, 3, 12, 12)}


def built(name: str) -> tuple[Any, dict[str, Any]]:
    """A tiny backbone and a batch for it, in which nothing was left to chance."""
    torch.manual_seed(0)
    model, batch = {**BACKBONES, **CASES, "dual_encoder": _dual_encoder}[name]()
    with torch.no_grad():
        for key, value in model.named_parameters():
            value.copy_(numbers(key, value.shape, 0.4 if value.dim() > 1 else 0.2))
            if value.dim() == 1 and key.endswith("weight"):
                value.add_(1)
    for key, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            batch[key] = numbers(key, value.shape, 2)
        elif key in ("input_ids", "decoder_input_ids", "labels"):
            drawn = ((numbers(key, value.shape, 84) + 42).round() + 5).to(value.dtype)
            batch[key] = torch.where((value >= 5) & (value < 90), drawn, value)
    return model.eval(), batch


def some_outputs(model: Any, batch: dict[str, Any]) -> dict[str, Tensor]:
    """Up to 64 numbers of every output under each task."""
    found = {}
    for task in TASKS:
        with torch.no_grad(), model.route(task=task):
            result = model(**batch)
        for key, value in result.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                flat = value.flatten()
                found[f"{task}/{key}"] = flat[:: -(-len(flat) // 64)].clone()
    return found


@pytest.mark.parametrize(("name", "method"), WRITTEN, ids="-".join)
def test_an_adapter_of_earlier_code_loads_bit_for_bit(name: str, method: str) -> None:
    if method == "peft":
        pytest.importorskip("peft")
    folder = FOLDER / f"{name}-{method}"
    model, batch = built(name)
    load_adapter(model, folder)
    slots = {f"{key}.{slot}": value for key, slot, value in model.weft.slots()}
    trained = dict(model.named_parameters()) | dict(model.named_buffers())
    full = {each.key: trained[each.path] for each in model.weft.plan.full}
    saved = load_file(folder / "adapter_model.safetensors")
    assert slots.keys() | full.keys() <= saved.keys()
    assert [key for key, value in (slots | full).items() if not torch.equal(value, saved[key])] == []
    expected = load_file(folder / "outputs.safetensors")
    found = some_outputs(model, batch)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-5)


def features(name: str, rows: int) -> Tensor:
    """Unit features that follow from a name, shape `(rows, 12)`."""
    return functional.normalize(numbers(name, torch.Size((rows, 12)), 2), dim=-1)


@pytest.mark.parametrize("method", HEADS)
def test_a_head_of_earlier_code_loads_bit_for_bit(method: str) -> None:
    from weft.core.few_shot import load_head

    folder = FOLDER / "heads" / method
    head = load_head(folder)
    saved = load_file(folder / "head.safetensors")
    state = {**head.state_dict(), "temperature": torch.tensor(head.temperature)}
    assert saved.keys() | set(head.optional_tensors()) == state.keys()
    assert [key for key, value in saved.items() if not torch.equal(state[key], value)] == []
    expected = load_file(folder / "outputs.safetensors")["logits"]
    torch.testing.assert_close(head.logits(features("queries", 7)), expected, rtol=1e-5, atol=1e-5)


def write_heads(folder: Path) -> None:
    """Write every head, fitted to the same samples."""
    from weft.core.cache import make_head  # type: ignore[import-not-found]  # its place then

    labels = torch.arange(4).repeat_interleave(3)
    for method, options in HEADS.items():
        head = make_head(features("classes", 4), {"method": method, **options})
        head.fit(features("samples", 12), labels, (features("validation", 12), labels))
        head.save(folder / method)
        logits = head.logits(features("queries", 7)).detach()
        save_file({"logits": logits}, folder / method / "outputs.safetensors")


def write(folder: Path) -> None:
    """Write every adapter and what its model computes."""
    for (name, method), options in WRITTEN.items():
        model, batch = built(name)
        attach(model, {"method": method, **options}, TASKS)
        with torch.no_grad():
            for key, value in model.named_parameters():
                if value.requires_grad:
                    value.add_(numbers(f"trained {key}", value.shape, 0.2))
        own = folder / f"{name}-{method}"
        model.save_pretrained(own)
        save_file(some_outputs(model, batch), own / "outputs.safetensors")
        print(own.name, sum(file.stat().st_size for file in own.iterdir()))  # noqa: T201  (a script)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write(Path(sys.argv[1]))
    write_heads(Path(sys.argv[1]) / "heads")

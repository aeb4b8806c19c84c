"""Step time and peak memory of training a Qwen2.5-VL of small width, beside TRL's SFTTrainer with peft's LoRA.

Each side is a process that trains as its users do:
rows are read, pictures decoded and resized, prompts tokenised, and steps taken by the trainer itself. Pictures and
texts of all rows are of one size, so that no order of rows is lighter than another. Where memory is measured, every
side takes its steps in a fresh process; what it had before the first step is also given apart.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml

from benchmarks.measure.options import Options
from benchmarks.measure.sides import Side, in_turns, ratio
from weft.core.testing.processed import tiny

PEERS = ("trl", "peft")
COLORS = {"red": (220, 30, 30), "blue": (30, 30, 220), "grey": (90, 90, 90), "pink": (240, 150, 190)}
STEP = {
    "vocabulary": 2000,
    "width": 256,
    "layers": 4,
    "vision": 128,
    "side": 112,
    "words": 8,
    "batch_size": 8,
}
MEMORY = {
    "vocabulary": 150_000,
    "width": 128,
    "layers": 2,
    "vision": 64,
    "side": 112,
    "words": 250,
    "batch_size": 4,
}


def model_of(case: dict[str, Any]) -> tuple[Any, Any]:
    """A Qwen2.5-VL of the widths of a case, and its processor."""
    made = tiny("qwen2_5_vl")
    fields, width, vision = made.model.config.to_dict(), case["width"], case["vision"]
    heads = width // 64
    fields["text_config"].pop("layer_types", None)
    fields["text_config"] |= {
        "vocab_size": case["vocabulary"],
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": case["layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 12, 12]},
    }
    fields["vision_config"] |= {
        "depth": 4,
        "hidden_size": vision,
        "intermediate_size": 3 * vision,
        "num_heads": max(1, vision // 64),
        "out_hidden_size": width,
        "window_size": 56,
        "fullatt_block_indexes": [3],
    }
    torch.manual_seed(0)
    config = type(made.model.config)(**fields)
    return transformers.Qwen2_5_VLForConditionalGeneration(config), made.processor


def write_case(folder: Path, case: dict[str, Any], rows: int = 64) -> None:
    """Write model, table, pictures and recipe of a case into a folder."""
    from PIL import Image

    model, processor = model_of(case)
    pixels = case["side"] ** 2
    processor.image_processor.size = {"shortest_edge": 28 * 28, "longest_edge": pixels}
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    names = list(COLORS)
    lines = []
    for number in range(rows):
        color = names[number % len(names)]
        image = f"{number:03d}.png"
        Image.new("RGB", (case["side"],) * 2, COLORS[color]).save(folder / "data" / image)
        asked = " ".join(["what colour is it?"] * (case["words"] // 4))
        lines.append({"image": image, "question": asked, "answer": color})
    (folder / "data" / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {
        "name": "case",
        "backbone": {"name": str(folder / "model")},
        "method": {
            "method": "lora",
            "rank": case["rank"],
            "linears": ["query", "key", "value", "output"],
            "towers": ["text"],
        },
        "tasks": {
            "vqa": {
                "data": {
                    "name": "table",
                    "root": str(folder / "data"),
                    "options": {
                        "record": "image_qa",
                        "columns": {"answers": "answer"},
                        "file": "train.jsonl",
                    },
                    "test": None,
                },
                "ask": "{question}",
            }
        },
        "training": {
            "steps": 10,
            "batch_size": case["batch_size"],
            "learning_rate": 1e-4,
            "schedule": "constant",
            "weight_decay": 0.01,
            "log_every": case["log_every"],
            "threads": 1,
        },
        "output": str(folder / "runs"),
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    (folder / "case.json").write_text(json.dumps(case))


def side(name: str, python: str, folder: Path, *overrides: str, call: str | None = None) -> Side:
    """A side over a case."""
    command = [python, "-m", "benchmarks.vlm_side", name, str(folder), *overrides]
    return Side(call or name, command)


def measured(case: dict[str, Any], trl: str, rounds: int, steps: int) -> dict[str, Any]:
    """Both sides of a case, in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder, case)
        rows = in_turns(
            [side("weft", sys.executable, folder), *(side(peer, trl, folder) for peer in PEERS)],
            rounds=rounds,
            steps=steps,
        )
    found = {
        peer: {entry: ratio(rows, "weft", peer, entry) for entry in ("cpu_ms", "wall_ms")} for peer in PEERS
    }
    return {"case": case, "rounds": rounds, "sides": rows, "over": found}


def measured_memory(case: dict[str, Any], trl: str, steps: int) -> dict[str, Any]:
    """What each side's process grows by in its steps."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_case(folder, case)
        for one in (side("weft", sys.executable, folder), *(side(peer, trl, folder) for peer in PEERS)):
            one.start()
            before = one.peak_mib
            one.turn(steps)
            one.end()
            rows.append({**one.row(), "grown_mib": round(one.peak_mib - before, 1)})
    entries = ("peak_mib", "grown_mib", "cpu_ms")
    found = {peer: {entry: ratio(rows, "weft", peer, entry) for entry in entries} for peer in PEERS}
    return {"case": case, "sides": rows, "over": found}


def measure(options: Options) -> dict[str, Any]:
    """Time of a step, and peak memory."""
    same = {"rank": 8, "log_every": 50}
    large = {**MEMORY, "vocabulary": 5000} if options.quick else MEMORY
    step = measured({**STEP, **same}, options.trl, options.rounds, 2)
    return {"step": step, "memory": measured_memory({**large, **same}, options.trl, 2)}

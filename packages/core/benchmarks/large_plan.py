"""How long `plan` and `attach` take on a model of the shape of Qwen2.5-VL 7B, on the meta device.

`python packages/core/benchmarks/large_plan.py` prints seconds per method, and their ratio to the time in which
transformers builds the meta model itself. With `--peft`, PEFT puts LoRA into the same maps of the same model.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
import transformers

from weft.core import attach, detach, plan

TASKS = ["vqa", "gqa", "nlvr", "caption"]
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "rank": 16, "sharing": "multiple", "towers": ["text", "vision"]},
    "bottleneck": {
        "method": "bottleneck",
        "reduction_factor": 16,
        "sharing": "half",
        "towers": ["text", "vision"],
    },
}


def meta_model() -> Any:
    """Qwen2.5-VL 7B by its published configuration, without weights."""
    text = {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "tie_word_embeddings": False,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
    }
    vision = {
        "depth": 32,
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "out_hidden_size": 3584,
    }
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False)
    with torch.device("meta"):
        return transformers.Qwen2_5_VLForConditionalGeneration(config)


def main() -> None:
    """Measure and print a line of JSON per method."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peft", action="store_true", help="PEFT beside")
    settings = parser.parse_args()
    meta_model()  # the first call imports the model's code
    start = time.process_time()
    model = meta_model()
    built = time.process_time() - start
    plan(model, {"method": "frozen"})  # and this one the families'
    parameters = sum(value.numel() for value in model.parameters())
    print(json.dumps({"parameters": parameters, "build_seconds": round(built, 3)}), flush=True)
    for name, method in METHODS.items():
        start = time.process_time()
        planned = plan(model, method, TASKS)
        after_plan = time.process_time()
        attach(model, method, TASKS)
        after_attach = time.process_time()
        row = {
            "method": name,
            "sites": len(planned.sites),
            "trainable_parameters": planned.trainable_parameters,
            "plan_seconds": round(after_plan - start, 3),
            "attach_seconds": round(after_attach - after_plan, 3),
            "plan_over_build": round((after_plan - start) / built, 3),
            "attach_over_build": round((after_attach - after_plan) / built, 3),
        }
        print(json.dumps(row), flush=True)
        detach(model)
    if settings.peft:
        import peft

        names = [unit.site.path for unit in plan(model, METHODS["lora"]).units]
        targets = sorted(dict.fromkeys(names))
        config = peft.LoraConfig(r=16, target_modules=targets)
        start = time.process_time()
        wrapped = peft.get_peft_model(model, config, adapter_name=TASKS[0], low_cpu_mem_usage=True)
        for task in TASKS[1:]:
            wrapped.add_adapter(task, config, low_cpu_mem_usage=True)
        seconds = time.process_time() - start
        print(
            json.dumps({"method": "lora of PEFT", "maps": len(targets), "attach_seconds": round(seconds, 3)}),
            flush=True,
        )


if __name__ == "__main__":
    main()

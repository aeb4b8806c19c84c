"""Time and memory of a training step whose head is computed at answers alone, beside the model's own loss.

`python packages/eval/benchmarks/answer_positions.py` trains LoRA on a small Llama of random weights that reads prompts
of 500 tokens and has a vocabulary of 150,000, each way in a process of its own, and prints the median of the steps, the
growth of the process, and their ratios.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any

import torch
import transformers

from weft.core import attach
from weft.core.testing.processed import tiny
from weft.core.testing.processed.words import SENTENCES
from weft.eval.readers import ask, reader_for

WAYS = ("reader", "model")
VOCABULARY, PROMPT, WIDTH = 150_000, 500, 128


def model_like(config: Any) -> Any:
    """A LLaVA with a wide vocabulary: the tokenizer's own rows are the first of it."""
    text = {"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 4}
    fields = config.to_dict()
    fields["text_config"] |= text | heads | {"max_position_embeddings": 2048}
    torch.manual_seed(0)
    return transformers.LlavaForConditionalGeneration(type(config)(**fields))


def measure(way: str, rows: int, steps: int) -> dict[str, float]:
    """Seconds of a step and MiB that the process grew by."""
    torch.set_num_threads(1)
    made = tiny("llava")
    reader = reader_for(made.model.config, made.processor)
    words, question = made.processor.tokenizer, " ".join(SENTENCES)
    while len(words(question)["input_ids"]) < PROMPT:
        question += " " + SENTENCES[0]
    batch = reader.training([ask(question, answer=f"number {row}") for row in range(rows)])
    model = attach(model_like(made.model.config), {"method": "lora", "rank": 4})
    before, times = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(steps):
        start = time.process_time()
        if way == "reader":
            reader.losses(model, batch).mean.backward()
        else:
            model(**batch.inputs, labels=batch.labels).loss.backward()
        times.append(time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "seconds": statistics.median(times),
        "mib": grown / 1024,
        "tokens": batch.inputs["input_ids"].shape[1],
    }


def main() -> None:
    """Measure each way in a fresh process and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.way, arguments.rows, arguments.steps)))
        return
    found = {}
    for way in WAYS:
        options = ["--way", way, "--rows", str(arguments.rows), "--steps", str(arguments.steps)]
        done = subprocess.run(
            [sys.executable, __file__, *options], check=True, capture_output=True, text=True
        )
        found[way] = json.loads(done.stdout.splitlines()[-1])
        one = found[way]
        print(f"{way}: {one['tokens']} tokens, {one['seconds']:.2f} s, {one['mib']:.0f} MiB")
    for name in ("seconds", "mib"):
        print(f"{name}: {found['reader'][name] / found['model'][name]:.2f} of the model's own")


if __name__ == "__main__":
    main()

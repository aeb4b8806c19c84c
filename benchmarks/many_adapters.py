"""Sixteen tasks served at once: mixed batches, beside sixteen adapters of PEFT one after another.

Requests come in random order and are answered sixteen at a time; the result holds the processor seconds of each side,
their ratio, and how many answers agree. Both sides hold the same LoRA of the same
LLaVA; PEFT answers the requests of a batch task by task, as each adapter has to be set.
"""

from __future__ import annotations

import copy
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks.measure.options import Options
from benchmarks.measure.results import versions
from weft.core import attach
from weft.core.files.interop.peft import export_peft
from weft.core.testing.processed import tiny
from weft.eval.readers import Batch, Writing, reader_for
from weft.eval.readers.rows import ask

TASKS, WIDTH, LAYERS, NEW_TOKENS = 16, 256, 6, 8
Side = Callable[[Sequence[tuple[str, Any]]], dict[int, tuple[int, ...]]]


def model_and_reader() -> tuple[Any, Any]:
    """A LLaVA of a few million random weights, and what reads it."""
    made = tiny("llava")
    config = copy.deepcopy(made.model.config)
    text = config.text_config
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = WIDTH, 4 * WIDTH, LAYERS
    text.num_attention_heads, text.num_key_value_heads, text.head_dim = 8, 8, WIDTH // 8
    torch.manual_seed(0)
    model = type(made.model)(config)
    for name, value in model.named_parameters():
        if value.dim() and "norm" not in name:
            torch.nn.init.normal_(value, std=0.05)
    return model.eval(), reader_for(config, made.processor)


def requests(tasks: Sequence[str], count: int) -> list[tuple[str, Any]]:
    """Tasks and rows, in random order."""
    draw = random.Random(0)
    rows = []
    for number in range(count):
        picture = Image.new("RGB", (60, 40), (number * 3 % 256, 90, 160))
        rows.append((draw.choice(list(tasks)), ask(f"what is number {number}?", [picture])))
    return rows


def written(model: Any, reader: Any, rows: Sequence[Any], **options: Any) -> list[tuple[int, ...]]:
    """Tokens of the answers to rows."""
    batch: Batch = reader.asking(rows)
    with torch.inference_mode():
        tokens = reader.generate(_With(model, options), batch, Writing(NEW_TOKENS))
    return [tuple(row) for row in tokens.tolist()]


class _With:
    """A model whose `generate` gets further arguments."""

    def __init__(self, model: Any, options: dict[str, Any]) -> None:
        self._model, self._options = model, options

    def generate(self, **given: Any) -> Any:
        return self._model.generate(**given, **self._options, min_new_tokens=NEW_TOKENS)


def sides(tasks: Sequence[str], size: int, folder: Path) -> dict[str, Side]:
    """Weft and PEFT, with equal weights."""
    from peft import PeftModel

    base, reader = model_and_reader()
    model = attach(copy.deepcopy(base), {"method": "lora", "rank": 8, "sharing": "multiple"}, tasks).eval()
    with torch.no_grad():
        for _, _, value in model.weft.slots():
            value.add_(torch.randn_like(value) * 0.05)
    theirs: Any = None
    for task in tasks:
        export_peft(model, folder / task, task=task)
        if theirs is None:
            theirs = PeftModel.from_pretrained(base, folder / task, adapter_name=task).eval()
        else:
            theirs.load_adapter(folder / task, adapter_name=task)

    def mixed(asked: Sequence[tuple[str, Any]]) -> dict[int, tuple[int, ...]]:
        found = {}
        for start in range(0, len(asked), size):
            part = asked[start : start + size]
            with model.route(tasks=[task for task, _ in part]):
                said = written(model, reader, [row for _, row in part])
            found.update({start + place: tokens for place, tokens in enumerate(said)})
        return found

    def one_by_one(asked: Sequence[tuple[str, Any]]) -> dict[int, tuple[int, ...]]:
        found = {}
        for start in range(0, len(asked), size):
            part = list(enumerate(asked[start : start + size], start))
            for task in dict.fromkeys(task for _, (task, _) in part):
                own = [(place, row) for place, (name, row) in part if name == task]
                theirs.set_adapter(task)
                said = written(theirs, reader, [row for _, row in own])
                found.update(dict(zip((place for place, _ in own), said, strict=True)))
        return found

    return {"weft": mixed, "peft": one_by_one}


def measure(options: Options) -> dict[str, Any]:
    """Both sides in turns, over the same requests."""
    count, size = (16, 8) if options.quick else (64, 16)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tasks = [f"task{number}" for number in range(TASKS)]
    asked = requests(tasks, count)
    with tempfile.TemporaryDirectory() as name:
        both = sides(tasks, size, Path(name))
        seconds: dict[str, list[float]] = {side: [] for side in both}
        answers: dict[str, dict[int, tuple[int, ...]]] = {}
        for number in range(options.rounds):
            for side in sorted(both, reverse=bool(number % 2)):
                start = time.process_time()
                answers[side] = both[side](asked)
                seconds[side].append(time.process_time() - start)
    torch.set_num_threads(threads)
    medians = {side: statistics.median(each) for side, each in seconds.items()}
    same = sum(answers["weft"][place] == answers["peft"][place] for place in range(count))
    own = versions("torch", "transformers", "peft", "weft-core")
    return {
        "tasks": TASKS,
        "requests": count,
        "batch_size": size,
        "new_tokens": NEW_TOKENS,
        "rounds": options.rounds,
        "sides": [
            {"side": side, "cpu_s": round(medians[side], 3), "versions": own} for side in ("weft", "peft")
        ],
        "times_faster": round(medians["peft"] / medians["weft"], 2),
        "same_answers": same,
    }

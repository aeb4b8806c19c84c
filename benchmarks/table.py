"""The page of benchmarks, written from the results: `python -m benchmarks.table` writes docs/benchmarks.md."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.measure.results import RESULTS
from benchmarks.measure.sides import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
FRONT = """# Benchmarks

weft beside `peft`, `adapters` and TRL: the same models, rows, sizes and optimiser, one thread, each side a process of
its own, all taking turns. Times are processor milliseconds, medians over all turns, because the machine is shared; its
load is given with each table. `python -m nox -s bench` measures again and writes this page from `benchmarks/results`;
no figure is typed by hand.
"""
NAMES = {
    "bart": "BART-base width, 2 + 2 layers",
    "clip": "CLIP ViT-B/16, 4 layers",
    "qwen": "Qwen2.5-VL of width 512",
}


def found(pattern: str) -> list[dict[str, Any]]:
    """Results by name."""
    return [json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob(f"{pattern}.json"))]


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; numbers stand right."""
    lines = [" | ".join(head), " | ".join(["---", *["---:"] * (len(head) - 1)])]
    lines += [" | ".join("" if value is None else str(value) for value in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines) + "\n"


def origin(result: Mapping[str, Any]) -> str:
    """Where a result comes from."""
    at, versions = result["machine"], {}
    for side in result.get("sides", []):
        own = side.get("versions", {})
        for name, version in own.items():
            if name == "peft" and "adapters" in own:
                continue  # it lies in that environment, and is not measured there
            versions.setdefault(name, set()).add(version)
    told = ", ".join(f"{name} {' and '.join(sorted(all_))}" for name, all_ in sorted(versions.items()))
    return (
        f"{at['processor']}, {at['cores']} cores, load {at['load']}; {told + '; ' if told else ''}commit "
        f"{result['commit']}, {result['time'][:10]}.\n"
    )


def vlm() -> Iterator[str]:
    """Training a vision-language model."""
    for result in found("vlm_step"):
        step, memory = result["step"], result["memory"]
        yield "\n## A vision-language model, beside TRL and peft\n"
        yield (
            "A small Qwen2.5-VL, LoRA of rank 8 on the attention of the text. `trl` is `SFTTrainer` with its own loss, "
            "`peft` the `Trainer` of transformers over the same batches with the model's own. A step reads pictures, "
            "tokenises and trains.\n"
        )
        yield table(
            ("side", "ms a step", "wall ms", "peak MiB"),
            [(row["side"], row["cpu_ms"], row["wall_ms"], row["peak_mib"]) for row in step["sides"]],
        )
        yield told_over("Time over", step["over"], "cpu_ms", "1.0 against TRL")
        tokens = next(row["tokens_of_a_row"] for row in memory["sides"] if "tokens_of_a_row" in row)
        yield (
            f"\nWith a vocabulary of {memory['case']['vocabulary']:,} and {tokens} tokens a row, each in a fresh "
            "process; the head is computed at the places of answers alone:\n"
        )
        yield table(
            ("side", "peak MiB", "of which in the steps", "ms a step"),
            [(row["side"], row["peak_mib"], row["grown_mib"], row["cpu_ms"]) for row in memory["sides"]],
        )
        yield told_over("Peak memory over", memory["over"], "peak_mib", "0.5 against TRL")
        yield origin({**result, "sides": step["sides"]})


def told_over(what: str, over: Mapping[str, Mapping[str, float]], entry: str, goal: str) -> str:
    """Ratios in a sentence."""
    ratios = ", ".join(f"{peer}'s {values[entry]}" for peer, values in over.items())
    return f"\n{what} {ratios} (goal: at most {goal}).\n"


def stored() -> Iterator[str]:
    """Stored vision features."""
    for result in found("stored_vision"):
        yield "\n## Stored vision features\n"
        yield (
            f"`training.vision: stored`, where the tower is {result['tower_share']} of forward and backward: "
            f"{result['times_faster']['cpu_ms']} times the speed of running it (goal: at least 1.5).\n"
        )
        yield table(("side", "ms a step"), [(row["side"], row["cpu_ms"]) for row in result["sides"]])
        yield origin(result)


def alone() -> Iterator[str]:
    """Methods of one task."""
    results = found("alone_*")
    if not results:
        return
    yield "\n## One method, one task\n"
    yield (
        "`bare` is the frozen model with gradients flowing to its inputs, in each environment; `products` are the "
        "matrix products of the units alone, `optimiser` AdamW alone. What a side costs above these three is what a "
        "library adds; below zero, more of the backward pass was left out than in the bare model. Goals: at most 0.5 "
        "of what peers add for LoRA and bottleneck, 0.3 for Compacter.\n"
    )
    for result in results:
        yield f"\n### {result['method']}, {NAMES[result['shape']]}\n"
        above = result["above_floor_ms"]
        heads = ("side", "ms a step", "above the floor", "inference ms", "saved MiB", "peak MiB", "trained")
        more = ("attach ms", "save ms", "load ms")
        keys = ("inference_ms", "saved_mib", "peak_mib", "trained", "attach_ms", "save_ms", "load_ms")
        yield table(
            (*heads, *more),
            [
                (row["side"], row["cpu_ms"], above.get(row["side"]), *(row.get(key) for key in keys))
                for row in result["sides"]
            ],
        )
        yield origin(result)


def mixed() -> Iterator[str]:
    """Batches that mix tasks."""
    results = sorted(found("mixed_*"), key=lambda result: result["tasks"])
    if not results:
        return
    yield "\n## Batches that mix tasks\n"
    yield (
        f"Bottleneck adapters of each task, {results[0]['rows']} rows of {results[0]['tokens_of_a_row']} tokens, on "
        "BART-base's width. `MultiTask` and `BatchSplit` are those of adapters. Above bare: a step less the bare "
        "model's in its own environment. Goal: at most 0.4 of what theirs add.\n"
    )
    rows = []
    for result in results:
        times = {row["side"]: row["cpu_ms"] for row in result["sides"]}
        for row in result["sides"]:
            if row["side"].startswith("bare"):
                continue
            base = times["bare" if row["side"] == "weft" else "bare of adapters"]
            entries = (row["cpu_ms"], round(row["cpu_ms"] - base, 1), row["saved_mib"], row["peak_mib"])
            rows.append((f"{result['tasks']} tasks, {row['side']}", *entries))
    yield table(("side", "ms a step", "above bare", "saved MiB", "peak MiB"), rows)
    yield origin(results[-1])


def imported() -> Iterator[str]:
    """Import time."""
    for result in found("imports"):
        times = result["milliseconds"]
        yield "\n## Imports\n"
        yield table(("what", "ms"), list(times.items()))
        over = round((times["weft"] - times["torch"]) / 1e3, 2)
        yield f"\n`from weft.core import attach` takes {over} s beyond torch (goal: 1 s).\n"
        yield origin(result)


def main() -> None:
    """Write the page."""
    parts = [FRONT, *vlm(), *stored(), *mixed(), *alone(), *imported()]
    why = RESULTS / "notes.md"
    if why.exists():
        parts += ["## What is missed, and why", why.read_text("utf-8")]
    PAGE.write_text("\n".join(part.strip("\n") + "\n" for part in parts), encoding="utf-8")


if __name__ == "__main__":
    main()

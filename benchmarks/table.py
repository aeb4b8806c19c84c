"""The page of benchmarks and the table of the README, written from the results by `python -m benchmarks.table`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.measure.results import RESULTS
from benchmarks.measure.sides import ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
README = ROOT / "README.md"
BEGIN, END = "<!-- benchmarks: written by `python -m benchmarks.table` -->", "<!-- end of benchmarks -->"
FRONT = """# Benchmarks

weft beside `peft`, `adapters` and TRL: the same models, rows, sizes and optimiser, one thread, each side a process of
its own, all taking turns. Times are processor milliseconds, medians over all turns, because the machine is shared; its
load is given with each table. `python -m nox -s bench` measures again and writes this page, its pictures and the table
of the README from `benchmarks/results`; no figure is typed by hand. `python -m nox -s bench -- --only 'alone_clip_*'`
measures some cases, `-- --list` names all.
"""


class Shape(NamedTuple):
    """How a model is called: in a heading, and in a picture."""

    name: str
    short: str


METHODS = {"lora": "LoRA", "bottleneck": "bottleneck adapters", "compacter": "Compacter"}
SHAPES = {
    "bart": Shape("BART-base's width, 2 + 2 layers", "BART-base"),
    "clip": Shape("CLIP ViT-B/16, 4 layers", "CLIP ViT-B/16"),
    "qwen": Shape("Qwen2.5-VL of width 512, 4 + 4 layers", "small Qwen2.5-VL"),
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
    for name, version in result.get("versions", {}).items():
        versions.setdefault(name, set()).add(version)
    told = ", ".join(f"{name} {' and '.join(sorted(all_))}" for name, all_ in sorted(versions.items()))
    rounds = f"{result['rounds']} rounds; " if "rounds" in result else ""
    return (
        f"{rounds}{at['processor']}, {at['cores']} cores, load {at['load']}; {told + '; ' if told else ''}commit "
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
        yield origin({**result, "sides": step["sides"], "rounds": step["rounds"]})


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
    yield picture("benchmarks_step", "A step of each method over that of the bare model")
    once, kept = ("inference_ms", "saved_mib", "peak_mib"), ("attach_ms", "save_ms", "load_ms")
    for result in results:
        name = METHODS[result["method"]]
        yield f"\n### {name[0].upper()}{name[1:]}, {SHAPES[result['shape']].name}\n"
        above = result["above_floor_ms"]
        rows = result["sides"]
        yield table(
            ("side", "ms a step", "above the floor", "inference ms", "saved MiB", "peak MiB"),
            [
                (row["side"], row["cpu_ms"], above.get(row["side"]), *(row.get(key) for key in once))
                for row in rows
            ],
        )
        yield table(
            ("library", "trained", "attach ms", "save ms", "load ms"),
            [
                (row["side"], f"{row['trained']:,}", *(row[key] for key in kept))
                for row in rows
                if "save_ms" in row
            ],
        )
        yield origin(result)


def mixed_results() -> list[dict[str, Any]]:
    """What batches of several tasks cost, by their number."""
    return sorted(found("mixed_*"), key=lambda result: result["tasks"])


def tasks_of(result: dict[str, Any]) -> str:
    """How many tasks a result is about, in words."""
    return "1 task" if result["tasks"] == 1 else f"{result['tasks']} tasks"


def mixed() -> Iterator[str]:
    """Batches that mix tasks."""
    results = mixed_results()
    if not results:
        return
    yield "\n## Batches that mix tasks\n"
    yield (
        f"Bottleneck adapters of each task, {results[0]['rows']} rows of {results[0]['tokens_of_a_row']} tokens, on "
        "BART-base's width. `MultiTask` and `BatchSplit` are those of adapters. Above bare: a step less the bare "
        "model's in its own environment. Goal: at most 0.4 of what theirs add.\n"
    )
    yield picture("benchmarks_mixed", "A step over the bare model's, against the tasks in one batch")
    rows = []
    for result in results:
        times = {row["side"]: row["cpu_ms"] for row in result["sides"]}
        for row in result["sides"]:
            if row["side"].startswith("bare"):
                continue
            base = times["bare" if row["side"] == "weft" else "bare of adapters"]
            entries = (row["cpu_ms"], round(row["cpu_ms"] - base, 1), row["saved_mib"], row["peak_mib"])
            rows.append((f"{tasks_of(result)}, {row['side']}", *entries))
    yield table(("side", "ms a step", "above bare", "saved MiB", "peak MiB"), rows)
    yield origin(results[-1])


def requests() -> Iterator[str]:
    """Requests of many tasks."""
    for result in found("many_adapters"):
        yield "\n## Answers to requests of many tasks\n"
        yield (
            f"{result['requests']} questions about pictures, of {result['tasks']} tasks in random order, "
            f"{result['batch_size']} at a time, {result['new_tokens']} tokens each. weft answers a batch in one pass; "
            "PEFT sets one adapter after another. Both hold the same LoRA of the same small LLaVA; "
            f"{result['same_answers']} of {result['requests']} answers are equal.\n"
        )
        yield table(("side", "seconds"), [(row["side"], row["cpu_s"]) for row in result["sides"]])
        yield f"\nweft is {result['times_faster']} times as fast.\n"
        yield origin(result)


def kernels() -> Iterator[str]:
    """The operations alone."""
    for result in found("kernels"):
        yield "\n## The operations beneath\n"
        yield (
            "`weft.kernels` alone, beside plain torch: `eager` and `materialised` compute the formula as it stands, "
            "`loop` goes through the tasks one by one, `one-task` is our own with a single task. "
            "[Kernels](kernels.md) says what each computes.\n"
        )
        yield picture("benchmarks_kernels", "How many times as fast as plain torch each operation is")
        names = ("tokens", "d", "r", "queries", "keys", "classes", "tasks")
        rows = []
        for row in result["rows"]:
            shape = ", ".join(f"{name} {row[name]}" for name in names if name in row)
            memory = round(row["peak_mib"]) if "peak_mib" in row else None
            what = f"{row['suite']} {row['mode']}, {shape}: {row['provider']}"
            rows.append((what, round(row["ms"], 1), round(row["speedup_of_weft"], 2), memory))
        yield table(("what", "ms", "times as long as weft", "peak MiB"), rows)
        yield origin({**result, "versions": {"torch": result["torch"], "triton": result["triton"]}})


def large() -> Iterator[str]:
    """A plan of a model of seven billion parameters, and the search of a cache."""
    for result in found("core_large_plan"):
        yield "\n## Attaching to a model of seven billion parameters\n"
        model, *rows = result["rows"]
        yield (
            f"Qwen2.5-VL 7B without weights, four tasks, LoRA of rank 16 and bottleneck adapters in both towers; "
            f"transformers builds the model in {model['build_seconds']} s.\n"
        )
        keys = ("plan_seconds", "attach_seconds")
        yield table(
            ("method", "plan, seconds", "attach, seconds"),
            [(row["method"], *(row.get(key) for key in keys)) for row in rows],
        )
        yield origin(result)
    for result in found("core_cache_search"):
        (row,) = result["rows"]
        yield "\n## Choosing the two numbers of a cache\n"
        yield (
            f"All {row['grid'][0]} × {row['grid'][1]} pairs for {row['queries']:,} queries and {row['keys']:,} keys: "
            f"{row['one_pass_seconds']} s in one pass; one pair after another would take {row['all_pairs_seconds']} s, "
            f"{row['times_faster']} times as long.\n"
        )
        yield origin(result)


def picture(name: str, says: str) -> str:
    """A picture of the page."""
    return f"![{says}](images/{name}.png)\n"


def imported() -> Iterator[str]:
    """Import time."""
    for result in found("imports"):
        times = result["milliseconds"]
        yield "\n## Imports\n"
        yield table(("what", "ms"), list(times.items()))
        over = round((times["weft"] - times["torch"]) / 1e3, 2)
        yield f"\n`from weft.core import attach` takes {over} s beyond torch (goal: 1 s).\n"
        yield origin(result)


def summary() -> str:
    """The table of the README: each figure beside those of others, with the ratio."""
    rows: list[tuple[Any, ...]] = []

    def add(what: str, unit: str, ours: float, theirs: Mapping[str, float]) -> None:
        for name, value in theirs.items():
            beside = f"{name} {short(value)} {unit}"
            rows.append((what, f"{short(ours)} {unit}", beside, f"{ours / value:.2f}"))

    for result in found("vlm_step"):
        for part, entry, unit, what in (
            ("step", "cpu_ms", "ms", "training step, Qwen2.5-VL of width 256, LoRA"),
            ("memory", "peak_mib", "MiB", "peak memory, vocabulary of 150,000"),
        ):
            side = {row["side"]: row[entry] for row in result[part]["sides"]}
            add(what, unit, side["weft"], {"TRL": side["trl"], "peft": side["peft"]})
    for result in found("alone_*"):
        times = {row["side"]: row["cpu_ms"] for row in result["sides"]}
        theirs = {name: times[name] for name in ("peft", "adapters") if name in times}
        add(
            f"training step, {SHAPES[result['shape']].short}, {METHODS[result['method']]}",
            "ms",
            times["weft"],
            theirs,
        )
    for result in mixed_results():
        times = {row["side"]: row["cpu_ms"] for row in result["sides"]}
        theirs = {name: times[name] for name in ("MultiTask", "BatchSplit", "adapters") if name in times}
        add(
            f"batch of {tasks_of(result)}, BART-base, bottleneck adapters",
            "ms",
            times["weft"],
            theirs,
        )
    for result in found("many_adapters"):
        times = {row["side"]: row["cpu_s"] for row in result["sides"]}
        add(f"answers to {result['requests']} requests of {result['tasks']} tasks", "s", times["weft"],
            {"peft": times["peft"]})  # fmt: skip
    for result in found("imports"):
        times = result["milliseconds"]
        add("import", "ms", times["weft"], {"peft": times["peft"]})
    return table(("what", "weft", "beside it", "ratio"), rows)


def short(value: float) -> str:
    """A number in about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def with_summary(text: str) -> str:
    """The README with the table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{summary()}{END}{after}"


def page() -> str:
    """The page."""
    parts = [FRONT, *vlm(), *requests(), *stored(), *mixed(), *alone(), *kernels(), *large(), *imported()]
    why = RESULTS / "notes.md"
    if why.exists():
        parts += ["## What is missed, and why", why.read_text("utf-8")]
    return "\n".join(part.strip("\n") + "\n" for part in parts if part)


def main() -> None:
    """Write both."""
    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(with_summary(README.read_text("utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

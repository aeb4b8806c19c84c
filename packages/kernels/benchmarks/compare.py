"""Compare two result files: ``python compare.py base.jsonl new.jsonl``.

Prints, per case and provider in both, the ratio of times and whether it exceeds the spread of either run.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

_MEASURED = (
    "ms", "speedup", "percent", "peak", "relative", "bitwise", "graph", "time", "commit", "copy", "gemm",
    "l2", "launch",
)  # fmt: skip


def load(file: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Rows by everything that is not a measurement; the last of equal ones wins."""
    rows = (json.loads(line) for line in pathlib.Path(file).read_text().split("\n") if line)
    return {tuple(sorted((k, v) for k, v in r.items() if not k.startswith(_MEASURED))): r for r in rows}


def main(base_file: str, new_file: str) -> None:
    """Print one line per common case, then what only one file has."""
    base, new = load(base_file), load(new_file)
    for key in base.keys() & new.keys():
        old, fresh = base[key], new[key]
        ratio = old["ms"] / fresh["ms"]
        spread = max((row["ms_p80"] - row["ms_p20"]) / row["ms"] for row in (old, fresh))
        verdict = "noise" if abs(ratio - 1) <= spread else ("faster" if ratio > 1 else "slower")
        shape = " ".join(f"{k}={v}" for k, v in key if k not in ("torch", "triton", "device", "threads"))
        sys.stdout.write(f"{ratio:7.2f}×  {verdict:7} {shape}\n")
    sys.stdout.write(f"{len(base.keys() ^ new.keys())} cases are in one file only\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

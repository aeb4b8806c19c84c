"""What the order of frames is worth to a finished run on moving scenes.

`python packages/train/benchmarks/frame_order.py RUN...` scores runs of `motion/…` again, with the frames of the test in
order and in random order, and prints each score with the parameters trained.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import yaml

from weft.train.runs.rescore import rescore


def scores(run: Path, *, shuffled: bool, frame_aware: bool = False) -> dict[str, dict[str, float]]:
    """Task to its scores.

    Args:
        run: Folder of the run.
        shuffled: Whether the frames of the test are shown in random order.
        frame_aware: Whether frames that look like the text count more in the second stage of retrieval.
    """
    values = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    for task in values["tasks"].values():
        task["data"]["test_options"]["shuffled"] = shuffled
    values["evaluation"]["frame_aware"] = frame_aware
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        (copy / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        for name in ("adapter", "tokenizer"):
            if (run / name).is_dir():
                (copy / name).symlink_to((run / name).resolve())
        return {name: report["scores"] for name, report in rescore(copy).reports.items()}


def main() -> None:
    """Score every run both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--frame-aware", action="store_true", help="weight frames by their likeness to the text too"
    )
    options = parser.parse_args()
    for run in options.runs:
        for shuffled in (False, True):
            for task, found in scores(run, shuffled=shuffled, frame_aware=options.frame_aware).items():
                listed = "  ".join(f"{name} {value:.1f}" for name, value in found.items())
                order = "shuffled" if shuffled else "in order"
                sys.stdout.write(f"{run.name:28} {task:10} {order:9} {listed}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()

"""The cost of the sampler per batch, its memory over a long epoch, and the time to open a large index."""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

from weft.data import TaskMixture
from weft.data.shards.opening import open_shards


def resident_mb() -> float:
    """Return the greatest resident memory so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    arguments = parser.parse_args()
    share = arguments.rows // 4
    sizes = {"vqa": share, "gqa": 2 * share, "nlvr": share // 2, "caption": share // 2}
    for unit in ("homogeneous", "mixed"):
        mixture = TaskMixture(sizes, batch_size=arguments.batch, unit=unit)
        iterator = iter(mixture)
        for _ in range(len(mixture) // 10):
            next(iterator)
        early, start, count = resident_mb(), time.process_time(), 0
        for _ in iterator:
            count += 1
        spent = time.process_time() - start
        print(
            f"{unit:12s} {1e6 * spent / count:8.1f} us per batch of {arguments.batch}, "
            f"{1e6 * spent / count / arguments.batch:.2f} us per row; "
            f"memory {early:.0f} -> {resident_mb():.0f} MB over {arguments.rows} rows"
        )
    with tempfile.TemporaryDirectory() as folder:
        shard = {"rows": 2_000, "bytes": 1, "sha256": "0" * 64}
        shards = [{"file": f"shard-{k:05d}.parquet", **shard} for k in range(5_000)]
        index = {"version": 1, "name": "n", "split": "s", "task": "classify", "group_rows": 64}
        (Path(folder) / "index.json").write_text(json.dumps({**index, "shards": shards}))
        start = time.perf_counter()
        rows = len(open_shards(folder))
        print(f"index of {rows} rows opened in {time.perf_counter() - start:.3f} s")


if __name__ == "__main__":
    main()

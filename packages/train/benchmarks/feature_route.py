"""Training throughput of stored features against one HDF5 file per image: same engine, model, batches and losses.

Both routes train in turns in one process, without loader workers. The files are as VL-Adapter distributes them: for
each image a 16-bit grid of 49 × 2048 numbers, which the model pools to 36 tokens in every step. The store is what
`weft data import-features --tokens 36` makes of them; the losses of both routes must be equal in every bit. `cold`
reads files that the page cache was told to forget, as in an epoch over more features than memory holds; `warm` reads
them again right after. Rates are by the clock on the wall and, for machines that do other things besides, in processor
seconds, in which nobody waits for a disk. The size `loader` takes batches from the loader and does nothing with them:
no device can be fed faster.
"""

import argparse
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import TrainerCallback
from transformers.utils import logging

from weft.core import attach
from weft.core.composites.visual_embedding import pool_grid
from weft.data import ImageQA, MediaRef
from weft.data.features.store import FeatureStore
from weft.data.sources.folders import FolderStore
from weft.eval.evaluate.stored import stored_features
from weft.eval.evaluate.visual import Images, Visual
from weft.train.backbones.loading import load_backbone
from weft.train.engine.schedule import make_mixture
from weft.train.engine.trainer import MultiTaskTrainer, training_arguments
from weft.train.objectives import objectives_of
from weft.train.recipe.loading import load_recipe
from weft.train.recipe.training import Recipe
from weft.train.runs.feature_import import import_features
from weft.train.runs.open_session import make_batches
from weft.train.testing.stored_features import write_bart

SIZES = {"loader": (32, 1), "mini": (32, 1), "tiny": (64, 2), "small": (256, 3), "base": (768, 6)}
"""Width of a VL-BART and layers of each of its stacks; `base` is BART-base, `loader` takes no step."""
GRID, WIDTH = 49, 2048
SKIPPED = 3
CLOCKS = ("wall", "processor")


@dataclass(frozen=True)
class FilePerImage(Visual):
    """Reads features as VL-Adapter's code does: opens the file of each image, takes the array out of its group."""

    folder: Path

    def __call__(self, images: Images) -> dict[str, Tensor]:
        """Return `visual_features`, shape `(batch, images, 49, 2048)`, 16 bits as those of the store."""
        flat = torch.from_numpy(np.stack([self._one(ref) for group in images for ref in group]))
        return {"visual_features": flat.unflatten(0, (len(images), -1))}

    def _one(self, ref: MediaRef) -> NDArray[np.float16]:
        name = PurePosixPath(ref.path).stem
        with h5py.File(self.folder / f"{name}.h5", "r") as file:
            features: NDArray[np.float16] = file[f"{name}/features"][...]
            return features


class Clock(TrainerCallback):
    """Remembers when each step ended, by the clock on the wall and in processor seconds of this process."""

    def __init__(self) -> None:
        self.times: list[tuple[float, float]] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Look at both clocks."""
        self.times.append((time.perf_counter(), time.process_time()))

    def seconds(self) -> dict[str, float]:
        """Seconds of all steps after the first few."""
        first, last = self.times[SKIPPED - 1], self.times[-1]
        return {clock: b - a for clock, a, b in zip(CLOCKS, first, last, strict=True)}


def records(count: int) -> list[ImageQA]:
    """A question about each image, of the usual length of VQA's."""
    kept = FolderStore("nowhere")
    colors = ("red", "green", "blue", "yellow", "black")
    return [
        ImageQA(
            id=str(number),
            image=MediaRef(f"{number:012d}.jpg", kept),
            image_id=str(number),
            question=f"What color is thing {number % 97} on the left?",
            answers=(colors[number % 5],),
        )
        for number in range(count)
    ]


def write_files(folder: Path, count: int) -> None:
    """One HDF5 file per image, its group named by the image, with a 16-bit array `features`."""
    folder.mkdir()
    block = np.random.default_rng(0).normal(size=(64, GRID, WIDTH)).astype(np.float16)
    for number in range(count):
        name = f"{number:012d}"
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file[f"{name}/features"] = block[number % 64] + np.float16(number % 7)


def forget(files: Iterable[Path]) -> None:
    """Tell the page cache to drop files, so that the next reader goes to the disk."""
    for file in files:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)


def make_recipe(folder: Path, size: str, tokens: int, batch: int, steps: int) -> Recipe:
    """VL-Adapter's single adapter on a VL-BART of a size, on one task."""
    width, layers = SIZES[size]
    language = folder / f"bart-{size}"
    write_bart(language, width, layers, heads=max(1, width // 64))
    backbone = {"language": str(language), "feature_size": WIDTH, "num_visual_tokens": tokens}
    unit = {"method": "bottleneck", "reduction_factor": 8, "train_full": ["visual_embedding", "norms"]}
    data = {"name": "vqav2", "root": str(folder)}
    return load_recipe(
        {
            "name": f"route-{size}",
            "backbone": backbone,
            "method": unit,
            "tasks": {
                "vqa": {"prompt": "vqa: ", "max_text_tokens": 20, "max_target_tokens": 10, "data": data}
            },
            "training": {"steps": steps, "batch_size": batch, "learning_rate": 1e-3, "log_every": 1},
        }
    )


def trained(
    recipe: Recipe, size: str, rows: list[ImageQA], folder: Path, visual: Visual
) -> tuple[dict[str, float], list[float]]:
    """Train from new weights; samples per second by each clock after the first steps, and the loss of every step."""
    torch.manual_seed(0)
    backbone = load_backbone(recipe.backbone)
    model: Any = attach(backbone.model, recipe.method, list(recipe.tasks))
    steps, clock = recipe.training.steps or 0, Clock()
    trainer = MultiTaskTrainer(
        model.to("cuda" if torch.cuda.is_available() else "cpu"),
        training_arguments(recipe.training, folder, seed=0, steps=steps),
        records={"vqa": rows},
        mixture=make_mixture(recipe, {"vqa": len(rows)}),
        batches=make_batches(recipe, backbone, visual),
        section=recipe.training,
        objectives=objectives_of(model, recipe.training, recipe.training.batch_size, backbone.reader),
        callbacks=[clock],
    )
    if size == "loader":
        sums = []
        for batch in trainer.get_train_dataloader():
            clock.on_step_end()
            pooled = pool_grid(
                batch["batch"].inputs["visual_features"][:1], recipe.backbone.num_visual_tokens
            )
            sums.append(float(pooled.sum()))
    else:
        trainer.train()
        sums = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    samples = recipe.training.batch_size * (steps - SKIPPED)
    return {name: samples / seconds for name, seconds in clock.seconds().items()}, sums


def measure(
    recipe: Recipe, size: str, root: Path, rows: list[ImageQA], rounds: int
) -> Iterator[dict[str, Any]]:
    """Both routes in turns, cold and then warm, in every round."""
    folder, store = root / "hdf5", root / "store"
    routes: dict[str, Callable[[], Visual]] = {
        "hdf5": lambda: FilePerImage(folder),
        "store": lambda: stored_features([([FeatureStore(store)], (row.image for row in rows))], tokens=0),
    }
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    first: list[float] | None = None
    for _ in range(rounds):
        for route, opened in routes.items():
            gc.collect()  # A mapped file is not forgotten.
            forget([*folder.iterdir(), *store.iterdir()])
            for cache in ("cold", "warm"):
                rates, seen = trained(recipe, size, rows, root / "run", opened())
                first = first or seen
                assert seen == first, "both routes must train on the same numbers"
                for clock, rate in rates.items():
                    found[cache, clock, route].append(rate)
    # A processor does not wait for the disk, so that its seconds say nothing of a cold cache.
    for cache, clock in (("cold", "wall"), ("warm", "wall"), ("warm", "processor")):
        rates = {route: statistics.median(found[cache, clock, route]) for route in routes}
        ratios = [
            a / b for a, b in zip(*(found[cache, clock, route] for route in ("store", "hdf5")), strict=True)
        ]
        yield {
            "cache": cache,
            "clock": clock,
            **{f"{route}_samples_per_second": rate for route, rate in rates.items()},
            "ratio": rates["store"] / rates["hdf5"],
            "ratio_min": min(ratios),
            "ratio_max": max(ratios),
            "steps": recipe.training.steps,
            "batch_size": recipe.training.batch_size,
            "rounds": rounds,
        }


@contextmanager
def features(count: int, tokens: int, folder: Path | None) -> Iterator[Path]:
    """A folder with the files per image and the store that weft makes of them."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        root = Path(place)
        write_files(root / "hdf5", count)
        import_features(root / "hdf5", root / "store", tokens=tokens)
        yield root


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        "device": device,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "h5py": h5py.__version__,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
    }


def main() -> None:
    """Measure every size and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=[*SIZES])
    parser.add_argument("--tokens", type=int, default=36, help="of the model; 49 pools nothing")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="files are read by one")
    parser.add_argument("--batch", type=int, default=500, help="by default as VL-Adapter's VL-BART")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="where the files are written; by default the temporary folder"
    )
    parser.add_argument(
        "--out", type=Path, help="a file to which one line of JSON is added for each measurement"
    )
    options = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    rows = records(options.batch * options.steps)
    with features(len(rows), options.tokens, options.folder) as root:
        for size in options.sizes:
            recipe = make_recipe(root, size, options.tokens, options.batch, options.steps)
            for entry in measure(recipe, size, root, rows, options.rounds):
                line = {"size": size, "tokens": options.tokens, **entry, **machine()}
                if options.out:
                    with options.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(line) + "\n")
                rates = [entry[f"{route}_samples_per_second"] for route in ("hdf5", "store")]
                sys.stdout.write(
                    f"{size:6} {entry['cache']} {entry['clock']:9}  HDF5 per image {rates[0]:8.1f} samples/s  store "
                    f"{rates[1]:8.1f} samples/s  {entry['ratio']:.2f} x ({entry['ratio_min']:.2f} to "
                    f"{entry['ratio_max']:.2f})\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()

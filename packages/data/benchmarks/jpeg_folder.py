"""Images per core from JPEG photos: weft.data against `datasets` imagefolder, both behind a DataLoader.

Both sides decode, resize the short side to the same size, crop and normalise with the same code. weft decodes JPEG at
a reduced scale that is still above the target (`draft`), which is faster and not bit-identical; without, it gives the
same pixels, by simplejpeg where that is installed. Times are processor seconds, those of worker processes included, so
that whatever else runs on the machine counts little.
"""

import argparse
import io
import resource
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from weft.data import TaskMixture, load_dataset
from weft.data.media.transforms import ImageTransform
from weft.data.sampling.loader import MixtureLoader


def write_photos(root: Path, count: int, width: int, height: int) -> None:
    """Write smooth random pictures that compress like photos."""
    generator = np.random.default_rng(0)
    for number in range(count):
        small = generator.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=90)
        path = root / "train" / f"class{number % 10}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stream.getvalue())


def rate(batches: Iterable[torch.Tensor]) -> float:
    """Return images per processor second, over one epoch."""
    start = processor_seconds()
    seen = sum(len(images) for images in batches)
    return seen / (processor_seconds() - start)


def processor_seconds() -> float:
    """User and system time of this process and of those it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def run_weft(root: Path, transform: ImageTransform, batch: int, workers: int, draft: bool) -> float:
    """Return the rate of weft."""
    records = load_dataset("image_folder", root, "train")

    def collate(rows: list) -> torch.Tensor:
        scale = transform.size if draft else None
        return torch.stack([torch.from_numpy(transform(r.image.image(draft=scale))) for _, r in rows])

    loader = MixtureLoader(
        {"classify": records},
        TaskMixture({"classify": len(records)}, batch_size=batch),
        collate,
        num_workers=workers,
    )
    return rate(loader)


def run_datasets(root: Path, transform: ImageTransform, batch: int, workers: int, cache: str) -> float:
    """Return the rate of `datasets`."""
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=cache)

    def collate(items: list) -> torch.Tensor:
        return torch.stack([torch.from_numpy(transform(item["image"])) for item in items])

    loader = torch.utils.data.DataLoader(rows, batch, shuffle=True, collate_fn=collate, num_workers=workers)
    return rate(loader)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transform = ImageTransform(size=arguments.size, crop=arguments.size)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        root = Path(folder)
        write_photos(root, arguments.count, arguments.width, arguments.height)
        rates: dict[str, list[float]] = {"datasets": [], "weft": [], "weft, full decode": []}
        for _ in range(arguments.rounds):
            rates["datasets"].append(run_datasets(root, transform, arguments.batch, arguments.workers, cache))
            rates["weft"].append(run_weft(root, transform, arguments.batch, arguments.workers, True))
            rates["weft, full decode"].append(
                run_weft(root, transform, arguments.batch, arguments.workers, False)
            )
        best = {name: max(values) for name, values in rates.items()}
        for name, value in best.items():
            print(f"{name:18s} {value:8.1f} images/s and core   {value / best['datasets']:.2f} x datasets")


if __name__ == "__main__":
    main()

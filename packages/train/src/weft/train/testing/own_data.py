"""A set of images with questions, captions and conversations as people have them: PNGs of many shapes, and tables."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from weft.train.testing.annotations import write

COLORS = {"red": (220, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220), "yellow": (230, 220, 30)}
SHAPES = ("circle", "square", "triangle")
SIZES = ((60, 40), (40, 60), (64, 64), (96, 48), (50, 30), (120, 40))


def write_own_data(folder: Path, count: int = 24) -> Path:
    """Write pictures into `images/`, and `vqa.jsonl`, `captions.jsonl` and `talks.jsonl` beside it, a line a picture.

    Conversations show none to three pictures, at the beginning or between words, and have one or two answers. Returns
    the folder, which is made if it is missing.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rows = list(_drawn(folder, count))
    questions = [
        {"image": name, "question": f"What colour is the {shape}?", "answer": color}
        for name, color, shape in rows
    ]
    captions = [{"image": name, "caption": f"a {color} {shape}"} for name, color, shape in rows]
    around = [*rows, *rows]
    write(folder / "vqa.jsonl", questions)
    write(folder / "captions.jsonl", captions)
    write(folder / "talks.jsonl", [_talk(around[place : place + place % 4]) for place in range(count)])
    return folder


def _talk(shown: list[tuple[str, str, str]]) -> dict[str, Any]:
    """A conversation about pictures: about one, and about the last of several."""
    if shown:
        _, color, shape = shown[-1]
        places = " and ".join(["<image>"] * len(shown))
        first = f"Look: {places}. What colour is the last?" if shown[1:] else f"{places}\nWhat colour is it?"
        said = [first, color, "What shape is it?", shape][: 2 if len(shown) == 2 else 4]
    else:
        said = ["How many corners has a triangle?", "three"]
    turns = [{"role": ("user", "assistant")[place % 2], "content": text} for place, text in enumerate(said)]
    return {"messages": turns, "images": [name for name, _, _ in shown]}


def _drawn(folder: Path, count: int) -> Iterator[tuple[str, str, str]]:
    from PIL import Image, ImageDraw

    generator = random.Random(0)
    for number in range(count):
        width, height = generator.choice(SIZES)
        color, shape = generator.choice(list(COLORS)), generator.choice(SHAPES)
        picture = Image.new("RGB", (width, height), (240, 240, 240))
        x, y = generator.randint(2, width - 24), generator.randint(2, height - 24)
        box, pen = (x, y, x + 20, y + 20), ImageDraw.Draw(picture)
        if shape == "circle":
            pen.ellipse(box, fill=COLORS[color])
        elif shape == "square":
            pen.rectangle(box, fill=COLORS[color])
        else:
            pen.polygon([(x, y + 20), (x + 20, y + 20), (x + 10, y)], fill=COLORS[color])
        name = f"images/{number:04d}.png"
        picture.save(folder / name)
        yield name, color, shape


def own_task(root: Path, kind: str, **fields: Any) -> dict[str, Any]:
    """A task of a recipe over what `write_own_data` wrote.

    Args:
        root: Its folder.
        kind: `image_qa`, `caption`, `retrieval` or `conversation`.
        **fields: Further keys of the task.
    """
    columns = {
        "image_qa": {"answers": "answer"},
        "caption": {"captions": "caption", "media": "image"},
        "retrieval": {"text": "caption", "media": "image"},
    }
    name, options = "conversations", dict[str, Any](file="talks.jsonl")
    if kind != "conversation":
        file = "vqa.jsonl" if kind == "image_qa" else "captions.jsonl"
        name, options = "table", {"record": kind, "columns": columns[kind], "file": file}
    sizes = {"train": 16, "validation": 6, "test": 6}
    data = {"name": name, "root": str(root), "options": options, "sizes": sizes, "validation": "validation"}
    return {"data": data, **fields}


def short_run(output: Path, **training: Any) -> dict[str, Any]:
    """The keys of a recipe for a run of seconds that is not tracked: four steps of mixed batches on one thread.

    Args:
        output: Folder of the runs.
        **training: Keys of the training that differ.
    """
    usual = {"steps": 4, "batch_size": 4, "learning_rate": 1e-2, "threads": 1, "mixing": {"unit": "mixed"}}
    return {"training": usual | training, "tracking": {"enabled": False}, "output": str(output)}

"""Official annotations that tasks of several kinds share, in miniature, and how their files are written."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

Pictures = Sequence[tuple[Image.Image, str]]
"""Pictures, and what each shows in a word or two."""
STARTS = ("A", "One", "This is a", "Here is a", "There is a")


def write(path: Path, content: Any) -> None:
    """Write bytes, a text or plain data: rows of a `.jsonl` file a line each, anything else as one JSON value."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    if path.suffix == ".jsonl":
        content = "".join(json.dumps(row) + "\n" for row in content)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def write_captions(
    root: Path, name: str, folder: str, pictures: Pictures, splits: Mapping[str, int]
) -> dict[str, Image.Image]:
    """Write five captions of each image in Karpathy's form, and return the images by the names of their files."""
    images: list[Any] = []
    shown: dict[str, Image.Image] = {}
    for split, count in splits.items():
        for k in range(count):
            picture, word = pictures[k % len(pictures)]
            number = 500_000 + len(images)
            file = f"COCO_val2014_{number:012d}.jpg" if name == "coco" else f"{number}.jpg"
            shown[file] = picture
            texts = [f"{start} {word}." for start in STARTS]
            images.append(
                {
                    "filepath": folder,
                    "filename": file,
                    "imgid": number,
                    "cocoid": number,
                    "split": split,
                    "sentences": [{"raw": text, "sentid": 5 * number + n} for n, text in enumerate(texts)],
                }
            )
    write(root / f"dataset_{name}.json", {"dataset": name, "images": images})
    return shown


def vqa_annotation(question: int, image: int, word: str) -> dict[str, Any]:
    """What ten people answered a question of VQA v2: nine the word, and one another."""
    return {
        "question_id": question,
        "image_id": image,
        "question_type": "what is",
        "answer_type": "other",
        "answers": [{"answer": word if a < 9 else "thing", "answer_id": a} for a in range(10)],
    }

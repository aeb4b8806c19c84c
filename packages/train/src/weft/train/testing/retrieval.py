"""Retrieval and open questions on images and videos themselves, in the official files, as UniAdapter reads them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

STARTS = ("A", "One", "This is a", "Here is a", "There is a")


def write_retrieval_tasks(root: Path, pictures: Sequence[tuple[Image.Image, str]], *, rows: int) -> None:
    """Write COCO and Flickr30k in Karpathy's form, MSR-VTT, MSRVTT-QA, DiDeMo and the official VQA v2.

    A video shows one picture for a second. Writing it takes PyAV, as reading it does.

    Args:
        root: What recipes call `$WEFT_DATA`.
        pictures: Pictures, and what each shows in a word or two.
        rows: Training images, videos or questions of each; other splits have a quarter of them.
    """
    counts = {"train": rows, "val": max(4, rows // 4), "test": max(4, rows // 4)}
    _write_captions(root / "COCO", "coco", "val2014", pictures, counts)
    _write_captions(root / "flickr30k", "flickr30k", "flickr30k-images", pictures, counts)
    shown = [(encode_video(picture), word) for picture, word in pictures]
    _write_msrvtt(root / "msrvtt", shown, counts)
    _write_msrvtt_qa(root / "msrvtt_qa", shown, counts)
    _write_didemo(root / "didemo", shown, counts)
    _write_vqa(root / "vqa", pictures, {"train2014": counts["train"], "val2014": counts["val"]})


def encode_video(picture: Image.Image, frames: int = 8) -> bytes:
    """A second of one picture as an MP4 file."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=frames)
        stream.width, stream.height, stream.pix_fmt = *picture.size, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def _write_captions(
    root: Path,
    name: str,
    folder: str,
    pictures: Sequence[tuple[Image.Image, str]],
    counts: dict[str, int],
) -> None:
    images: list[Any] = []
    for split, count in counts.items():
        for k in range(count):
            picture, word = pictures[k % len(pictures)]
            number = 500_000 + len(images)
            file = f"COCO_val2014_{number:012d}.jpg" if name == "coco" else f"{number}.jpg"
            _save(picture, root / folder / file)
            images.append(
                {
                    "filepath": folder,
                    "filename": file,
                    "imgid": number,
                    "cocoid": number,
                    "split": split,
                    "sentences": [
                        {"raw": f"{start} {word}.", "sentid": 5 * number + n}
                        for n, start in enumerate(STARTS)
                    ],
                }
            )
    _write(root / f"dataset_{name}.json", {"dataset": name, "images": images})


def _write_msrvtt(root: Path, videos: Sequence[tuple[bytes, str]], counts: dict[str, int]) -> None:
    names = [f"video{k}" for k in range(counts["train"] + counts["test"])]
    shown = {name: videos[k % len(videos)][1] for k, name in enumerate(names)}
    train, test = names[: counts["train"]], names[counts["train"] :]
    listed = [{"video_id": name, "category": 0, "split": "train", "url": ""} for name in names]
    sentences = [
        {"video_id": name, "sen_id": 2 * k + n, "caption": f"{STARTS[n]} {shown[name]}"}
        for k, name in enumerate(names)
        for n in range(2)
    ]
    _write(root / "MSRVTT_data.json", {"videos": listed, "sentences": sentences})
    _write(root / "train_list_jsfusion.txt", "".join(f"{name}\n" for name in train))
    table = [f"ret{k},msr{k},{name},A {shown[name]}\n" for k, name in enumerate(test)]
    _write(root / "MSRVTT_JSFUSION_test.csv", "key,vkey,video_id,sentence\n" + "".join(table))
    for k, name in enumerate(names):
        _write(root / "videos" / "all" / f"{name}.mp4", videos[k % len(videos)][0])


def _write_msrvtt_qa(root: Path, videos: Sequence[tuple[bytes, str]], counts: dict[str, int]) -> None:
    number = 7010
    for split, count in counts.items():
        rows = []
        for k in range(count):
            video, word = videos[k % len(videos)]
            number += 1
            _write(root / "videos" / f"video{number}.mp4", video)
            rows.append(
                {
                    "answer": word,
                    "category_id": 0,
                    "id": number,
                    "question": "what is shown?",
                    "video_id": number,
                }
            )
        _write(root / f"{split}_qa.json", rows)


def _write_didemo(root: Path, videos: Sequence[tuple[bytes, str]], counts: dict[str, int]) -> None:
    number = 0
    for split, count in counts.items():
        rows = []
        for k in range(count):
            video = f"{split}{k}.mov"
            _write(root / "videos" / video, videos[k % len(videos)][0])
            for start in STARTS[:2]:
                number += 1
                rows.append(
                    {
                        "annotation_id": number,
                        "video": video,
                        "description": f"{start} {videos[k % len(videos)][1]}",
                        "times": [[1, 1], [1, 2]],
                        "num_segments": 6,
                        "dl_link": "",
                    }
                )
        _write(root / f"{split}_data.json", rows)


def _write_vqa(root: Path, pictures: Sequence[tuple[Image.Image, str]], counts: dict[str, int]) -> None:
    number = 0
    for subset, count in counts.items():
        questions, annotations = [], []
        for k in range(count):
            picture, word = pictures[k % len(pictures)]
            number += 1
            _save(picture, root / subset / f"COCO_{subset}_{number:012d}.jpg")
            row = {"question_id": number, "image_id": number}
            questions.append({**row, "question": "What is this?"})
            answers = [{"answer": word if a < 9 else "thing", "answer_id": a} for a in range(10)]
            annotations.append(
                {**row, "question_type": "what is", "answer_type": "other", "answers": answers}
            )
        _write(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", {"questions": questions})
        _write(root / f"v2_mscoco_{subset}_annotations.json", {"annotations": annotations})


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")

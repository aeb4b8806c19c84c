"""Retrieval and open questions on images and videos themselves, in the official files, as UniAdapter reads them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from weft.train.testing.annotations import STARTS, Pictures, vqa_annotation, write, write_captions


def write_retrieval_tasks(root: Path, pictures: Pictures, *, rows: int) -> None:
    """Write COCO and Flickr30k in Karpathy's form, MSR-VTT, MSRVTT-QA, DiDeMo and the official VQA v2.

    A video shows one picture for a second. Writing it takes PyAV, as reading it does.

    Args:
        root: What recipes call `$WEFT_DATA`.
        pictures: Pictures, and what each shows in a word or two.
        rows: Training images, videos or questions of each; other splits have a quarter of them.
    """
    counts = {"train": rows, "val": max(4, rows // 4), "test": max(4, rows // 4)}
    for folder, name, images in (("COCO", "coco", "val2014"), ("flickr30k", "flickr30k", "flickr30k-images")):
        for file, picture in write_captions(root / folder, name, images, pictures, counts).items():
            _save(picture, root / folder / images / file)
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
    write(root / "MSRVTT_data.json", {"videos": listed, "sentences": sentences})
    write(root / "train_list_jsfusion.txt", "".join(f"{name}\n" for name in train))
    table = [f"ret{k},msr{k},{name},A {shown[name]}\n" for k, name in enumerate(test)]
    write(root / "MSRVTT_JSFUSION_test.csv", "key,vkey,video_id,sentence\n" + "".join(table))
    for k, name in enumerate(names):
        write(root / "videos" / "all" / f"{name}.mp4", videos[k % len(videos)][0])


def _write_msrvtt_qa(root: Path, videos: Sequence[tuple[bytes, str]], counts: dict[str, int]) -> None:
    number = 7010
    for split, count in counts.items():
        rows = []
        for k in range(count):
            video, word = videos[k % len(videos)]
            number += 1
            write(root / "videos" / f"video{number}.mp4", video)
            row = {"answer": word, "category_id": 0, "id": number, "question": "what is shown?"}
            rows.append({**row, "video_id": number})
        write(root / f"{split}_qa.json", rows)


def _write_didemo(root: Path, videos: Sequence[tuple[bytes, str]], counts: dict[str, int]) -> None:
    number = 0
    for split, count in counts.items():
        rows = []
        for k in range(count):
            (film, word), video = videos[k % len(videos)], f"{split}{k}.mov"
            write(root / "videos" / video, film)
            for start in STARTS[:2]:
                number += 1
                row = {"annotation_id": number, "video": video, "description": f"{start} {word}"}
                rows.append({**row, "times": [[1, 1], [1, 2]], "num_segments": 6, "dl_link": ""})
        write(root / f"{split}_data.json", rows)


def _write_vqa(root: Path, pictures: Pictures, counts: dict[str, int]) -> None:
    number = 0
    for subset, count in counts.items():
        questions, annotations = [], []
        for k in range(count):
            picture, word = pictures[k % len(pictures)]
            number += 1
            _save(picture, root / subset / f"COCO_{subset}_{number:012d}.jpg")
            questions.append({"question_id": number, "image_id": number, "question": "What is this?"})
            annotations.append(vqa_annotation(number, number, word))
        write(root / f"v2_OpenEnded_mscoco_{subset}_questions.json", {"questions": questions})
        write(root / f"v2_mscoco_{subset}_annotations.json", {"annotations": annotations})


def _save(picture: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)

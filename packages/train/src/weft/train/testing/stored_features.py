"""Tasks whose visual features are stored, as VL-Adapter reads them: annotations and stores of a few pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, BartConfig, BartForConditionalGeneration

from weft.data.features.index import FeatureKey
from weft.data.features.write import write_features
from weft.train.backbones.saved import MINIATURE
from weft.train.testing.annotations import Pictures, vqa_annotation, write, write_captions

Array = NDArray[np.float16]
GRID, CELL = 7, 4


def grid_features(picture: Image.Image, width: int = 3 * CELL * CELL) -> Array:
    """A tiny frozen encoder: the pixels of 7 × 7 cells.

    Args:
        picture: Any RGB picture.
        width: Numbers per cell; 48 are pixels in 0..1, more are zeros after them.

    Returns:
        Shape `(49, width)`.
    """
    small = picture.convert("RGB").resize((GRID * CELL, GRID * CELL), Image.Resampling.BOX)
    pixels = np.asarray(small, np.float16) / np.float16(255)
    cells = pixels.reshape(GRID, CELL, GRID, CELL, 3).transpose(0, 2, 1, 3, 4).reshape(GRID * GRID, -1)
    return np.pad(cells, ((0, 0), (0, width - cells.shape[1])))


def write_bart(folder: Path, width: int, layers: int, heads: int, **fields: Any) -> None:
    """Write a random BART and its tokenizer, which is the miniature's; `fields` are further ones of its config."""
    tokenizer = AutoTokenizer.from_pretrained(MINIATURE)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(tokenizer),
        d_model=width,
        encoder_layers=layers,
        decoder_layers=layers,
        encoder_attention_heads=heads,
        decoder_attention_heads=heads,
        encoder_ffn_dim=4 * width,
        decoder_ffn_dim=4 * width,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=None,
        **fields,
    )
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_image_tasks(root: Path, pictures: Pictures, *, rows: int, width: int = 48) -> None:
    """Write VQA, GQA, NLVR2 and COCO captions in the files of VL-Adapter, and their feature stores.

    Every question asks what a picture shows, every caption says it, every sentence of a pair says what the left
    picture shows.

    Args:
        root: What recipes call `$WEFT_DATA`.
        pictures: Pictures, and what each shows in a word or two.
        rows: Training records of each task; other splits have a twentieth of them, but at least four.
        width: Width of the features.
    """
    few = max(4, rows // 20)
    coco = [f"COCO_{subset}2014_{k:012d}" for k in range(len(pictures)) for subset in ("train", "val")]
    by_stem = {stem: pictures[int(stem[-12:])] for stem in coco}
    _write_vqa(root / "vqa", by_stem, {"karpathy_train": rows, "karpathy_val": few, "karpathy_test": few})
    numbers = [str(2_300_000 + k) for k in range(len(pictures))]
    _write_gqa(root / "GQA", numbers, pictures, {"train": rows, "valid": few, "testdev": few})
    _write_nlvr(root / "nlvr", pictures, {"train": rows, "valid": few, "test": few})
    captions = {"train": rows // 5 + 1, "val": few, "test": few}
    shown = write_captions(root / "COCO", "coco", "val2014", pictures, captions)
    stores = {
        "coco_rn101": {stem: picture for stem, (picture, _) in by_stem.items()}
        | {Path(file).stem: picture for file, picture in shown.items()},
        "vg_rn101": dict(zip(numbers, (picture for picture, _ in pictures), strict=True)),
        "gqa_rn101": {f"n{number}": picture for number, (picture, _) in zip(numbers, pictures, strict=True)},
        "nlvr_rn101": {
            f"{subset}-{k}-0-img{side}": pictures[(k + side) % len(pictures)][0]
            for subset in ("train", "dev", "test1")
            for k in range(len(pictures))
            for side in (0, 1)
        },
    }
    for name, items in stores.items():
        write_features(
            root / "features" / name,
            ((stem, grid_features(picture, width)) for stem, picture in items.items()),
            FeatureKey("grid", "none", "box"),
        )


def write_video_tasks(root: Path, pictures: Pictures, *, rows: int, width: int = 48) -> None:
    """Write TVQA, How2QA, TVC and YC2C in the files of VALUE, and stores of frame features.

    Args:
        root: What recipes call `$WEFT_DATA`.
        pictures: Frames, and what each shows. A video is a few of them.
        rows: Training records of each task.
        width: Width of the features.
    """
    few = max(4, rows // 4)
    annotations = root / "video" / "ann"
    for show, option_count in (("tvqa", 5), ("how2qa", 4)):
        suffix = "" if show == "tvqa" else "_release"
        for split, count in (("train", rows), ("val", few), ("test_public", few)):
            lines = [
                _choice(show, k, pictures, option_count, hidden=split == "test_public") for k in range(count)
            ]
            write(annotations / show / f"{show}_{split}{suffix}.jsonl", lines)
    for show in ("tvc", "yc2c"):
        for split, count in (("train", rows), ("val", few), ("test", few)):
            lines = [_clip(show, split, k, pictures) for k in range(count)]
            write(annotations / show / f"{show}_{split}_release.jsonl", lines)
    for prefix in ("tv", "how2", "yc2"):
        names = [f"{prefix}_{k}" for k in range(len(pictures))]
        speech = [
            {"vid_name": name, "sub": [{"text": "A : look", "start": 0.5, "end": 2.0}]} for name in names
        ]
        write(annotations / f"{prefix}_subtitles.jsonl", speech)
        frames = (
            np.stack(
                [grid_features(pictures[k][0])[f, :].repeat(-(-width // 48))[:width] for f in range(2 + k)]
            )
            for k in range(len(pictures))
        )
        write_features(
            root / "features" / f"{prefix}_clip_vit",
            zip(names, frames, strict=True),
            FeatureKey("grid", "none", "box"),
            ragged=True,
        )


def _write_vqa(root: Path, pictures: dict[str, tuple[Image.Image, str]], splits: dict[str, int]) -> None:
    stems = list(pictures)
    annotations: dict[str, list[Any]] = {"train2014": [], "val2014": []}
    number = 0
    for split, count in splits.items():
        rows = []
        for k in range(count):
            stem = stems[k % len(stems)]
            shown, number = pictures[stem][1], number + 1
            rows.append(
                {"question_id": number, "img_id": stem, "sent": "What is this?", "label": {shown: 1.0}}
            )
            annotations[stem.split("_")[1]].append(vqa_annotation(number, int(stem[-12:]), shown))
        write(root / f"{split}.json", rows)
    for subset, rows in annotations.items():
        write(root / f"v2_mscoco_{subset}_annotations.json", {"annotations": rows})


def _write_gqa(root: Path, numbers: Sequence[str], pictures: Pictures, splits: dict[str, int]) -> None:
    for split, count in splits.items():
        rows = [
            {
                "img_id": ("n" if split == "testdev" else "") + numbers[k % len(numbers)],
                "label": {pictures[k % len(pictures)][1]: 1.0},
                "question_id": f"{k:08d}",
                "sent": "What is it?",
            }
            for k in range(count)
        ]
        write(root / f"{split}.json", rows)


def _write_nlvr(root: Path, pictures: Pictures, splits: dict[str, int]) -> None:
    subsets = {"train": "train", "valid": "dev", "test": "test1"}
    for split, count in splits.items():
        rows = []
        for k in range(count):
            pair, sentence = k % len(pictures), k // len(pictures)
            named = pictures[(pair + sentence % 2) % len(pictures)][1]
            place = f"{subsets[split]}-{pair}-0"
            rows.append(
                {
                    "identifier": f"{place}-{sentence}",
                    "img0": f"{place}-img0",
                    "img1": f"{place}-img1",
                    "label": int(named == pictures[pair][1]),
                    "sent": f"The left image shows a {named}.",
                    "uid": f"nlvr2_{split}_{k}",
                }
            )
        write(root / f"{split}.json", rows)


def _choice(show: str, k: int, pictures: Pictures, options: int, *, hidden: bool) -> dict[str, Any]:
    video = k % len(pictures)
    right = k % options
    words = [pictures[(video + 1 + n) % len(pictures)][1] for n in range(options)]
    words[right] = pictures[video][1]
    return {
        "qid": k,
        "vid_name": f"{'tv' if show == 'tvqa' else 'how2'}_{video}",
        "ts": "0.16-2.12",
        "q": "What is shown?",
        **{f"a{n}": f"{word}." for n, word in enumerate(words)},
        **({} if hidden else {"answer_idx": right}),
    }


def _clip(show: str, split: str, k: int, pictures: Pictures) -> dict[str, Any]:
    video = k % len(pictures)
    descriptions = [{"desc": f"{start} {pictures[video][1]}.", "type": "v"} for start in ("A", "One")]
    return {
        "vid_name": f"{'tv' if show == 'tvc' else 'yc2'}_{video}",
        "clip_id": k,
        "duration": 4.0,
        **({"ts": [0.5, 2.5]} if show == "tvc" else {}),
        **({} if split == "test" else {"descs": descriptions if show == "tvc" else descriptions[:1]}),
    }

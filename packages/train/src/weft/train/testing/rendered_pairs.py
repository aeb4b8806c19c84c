"""Rendered images with captions, and a tiny BLIP that learns to find one by the other in minutes of one CPU core.

A BLIP is pretrained on captions that say what is shown ("red star"), and adapted to captions that also say how big it
is and where ("small red star top left"): words that the pretraining never reads, and details that it never asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from weft.core import attach
from weft.core.composites import BlipRetrieval, BlipRetrievalConfig
from weft.data import MediaRef, Retrieval
from weft.data.scenes.render import IMAGE_SIZE, render
from weft.data.scenes.scene import COLORS, GRID_SIZE, SHAPES, SIZES, Scene, sample_scene
from weft.eval.evaluate.inputs import TextRules
from weft.eval.evaluate.read import ReaderBatches
from weft.eval.evaluate.rerank import rerank
from weft.eval.metrics.matches import Matches, retrieval_scores
from weft.eval.readers import PairedProcessor, Wording, reader_for
from weft.train.objectives.image_text import ImageText
from weft.train.recipe.training import ContrastSection

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "center", "right")
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[DEC]", "[ENC]")
WORDS = (*SPECIAL, *SIZES, *COLORS, *SHAPES, *ROWS, *COLUMNS)
LENGTH = 7
PATCH = IMAGE_SIZE // GRID_SIZE  # one cell of the scenes' grid
SIDE = 3 * PATCH
CANDIDATES = 16


def what(scene: Scene) -> str:
    """Colour and shape, such as "red star": 48 captions."""
    return " ".join(scene.objects[0].kind)


def what_and_where(scene: Scene) -> str:
    """Size, colour, shape and place, such as "small red star top left": 864 captions."""
    item = scene.objects[0]
    return f"{item.size} {what(scene)} {ROWS[item.row - 1]} {COLUMNS[item.column - 1]}"


@dataclass(frozen=True)
class Pairs:
    """Images and their captions.

    Attributes:
        pixel_values: Shape `(pairs, frames, 3, SIDE, SIDE)`; an image is a film of one frame.
        input_ids: Shape `(pairs, LENGTH)`.
        same_image: Number of the caption, shape `(pairs,)`: images of equal captions match each other's.
        captions: The captions.
    """

    pixel_values: Tensor
    input_ids: Tensor
    same_image: Tensor
    captions: tuple[str, ...]

    def batch(self, rows: Tensor) -> dict[str, Tensor]:
        """The rows as inputs of an objective."""
        ids = self.input_ids[rows]
        return {
            "pixel_values": self.pixel_values[rows],
            "input_ids": ids,
            "attention_mask": (ids != 0).long(),
            "same_image": self.same_image[rows],
        }


def rendered_pairs(
    name: str,
    size: int,
    caption: Callable[[Scene], str],
    *,
    distinct: bool = False,
    avoid: Collection[str] = (),
) -> Pairs:
    """Scenes of one object in the middle nine cells, drawn from the name and nothing else.

    Args:
        name: Part of the seed of every scene.
        size: Number of pairs.
        caption: What is written to a scene.
        distinct: Whether no caption occurs twice.
        avoid: Captions that must not occur, such as those of a test.
    """
    seen = set(avoid)
    images: list[Tensor] = []
    captions: list[str] = []
    number = 0
    while len(captions) < size:
        scene = sample_scene(f"{name}-{number}", 0, min_objects=1, max_objects=1)
        number += 1
        text = caption(scene) if is_central(scene) else None
        if text is None or text in seen:
            continue
        if distinct:
            seen.add(text)
        captions.append(text)
        images.append(drawn(scene))
    return paired(torch.stack(images)[:, None], captions)


def drawn(scene: Scene) -> Tensor:
    """The middle nine cells of a scene, shape `(3, SIDE, SIDE)`."""
    middle = (PATCH, PATCH, PATCH + SIDE, PATCH + SIDE)
    pixels = torch.from_numpy(np.asarray(render(scene).crop(middle), dtype=np.float32))
    # Backgrounds are light: they become nearly zero, and what is on them negative.
    return pixels.permute(2, 0, 1) / 64 - 3.6


def is_central(scene: Scene) -> bool:
    """Whether the one object of a scene is in the middle nine cells."""
    item = scene.objects[0]
    return 1 <= item.row <= len(ROWS) and 1 <= item.column <= len(COLUMNS)


def paired(pixel_values: Tensor, captions: Sequence[str]) -> Pairs:
    """Images or films, shape `(pairs, frames, 3, SIDE, SIDE)`, with their captions of `WORDS`."""
    numbers = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
    same = torch.tensor([numbers[caption] for caption in captions])
    return Pairs(pixel_values.contiguous(), _encoded(captions), same, tuple(captions))


def tiny_blip(seed: int, *, width: int = 64, layers: int = 2) -> Any:
    """A BLIP of random weights for these pairs, both towers alike."""
    sizes: dict[str, Any] = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
    }
    text = {
        **sizes,
        "encoder_hidden_size": width,
        "vocab_size": len(WORDS),
        "max_position_embeddings": LENGTH,
        "pad_token_id": WORDS.index("[PAD]"),
        "bos_token_id": WORDS.index("[DEC]"),
        "sep_token_id": WORDS.index("[SEP]"),
        "eos_token_id": WORDS.index("[SEP]"),
    }
    config = BlipRetrievalConfig(
        text_config=text,
        vision_config={**sizes, "image_size": SIDE, "patch_size": PATCH},
        image_text_hidden_size=width // 2,
        encode_token_id=WORDS.index("[ENC]"),
    )
    torch.manual_seed(seed)
    model = BlipRetrieval(config)
    # The usual 0.02 is for wide layers; in narrow ones next to nothing would reach the first token.
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
            elif isinstance(module, nn.Embedding):
                module.weight.normal_()
        places = model.vision_model.embeddings
        places.position_embedding.normal_(0, 0.5)
        places.class_embedding.normal_(0, 0.5)
    return model


def pretrained_blip(seed: int, *, steps: int) -> tuple[Any, dict[str, float]]:
    """A BLIP trained as a whole on captions of colour and shape, without units.

    Returns:
        The model, and its scores on images that it has not seen, one of each of forty captions; see `recalls`.
    """
    pairs = rendered_pairs("source", 4000, what)
    model = attach(tiny_blip(seed), {"method": "full"})
    train(model, pairs, steps=steps, learning_rate=1e-3, seed=seed)
    found = recalls(model, rendered_pairs("source-test", 40, what, distinct=True))
    plain = tiny_blip(seed)
    plain.load_state_dict(model.state_dict())
    return plain, found


def train(
    model: Any,
    pairs: Pairs,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int = 64,
    together: int = 1,
    seed: int = 0,
) -> list[float]:
    """Train contrast and matching as recipes do, with AdamW, a short rise and a cosine.

    Args:
        model: An adapted `BlipRetrieval`.
        pairs: Training pairs.
        steps: Optimiser steps.
        learning_rate: Peak of the schedule.
        batch_size: Pairs of a batch.
        together: Pairs that follow one another and stay in one batch; divides the batch size.
        seed: Seed of the order of the pairs and of the negatives.

    Returns:
        Mean loss of each step.
    """
    torch.manual_seed(seed)
    # In so few steps a momentum encoder would stay far behind, and its opinion be of no use.
    section = ContrastSection(queue_size=batch_size, momentum=0.0, alpha=0.0)
    objective = ImageText(model, section, rows=batch_size)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=learning_rate, weight_decay=0.01)
    rise = max(1, steps // 20)
    rising = lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise)
    falling = lr_scheduler.CosineAnnealingLR(optimizer, steps - rise)
    schedule = lr_scheduler.SequentialLR(optimizer, [rising, falling], [rise])
    model.train()
    losses = []
    for _, rows in zip(range(steps), _orders(len(pairs.captions), batch_size, together), strict=False):
        optimizer.zero_grad()
        batch = pairs.batch(rows)
        loss = objective.losses(model, batch, batch["same_image"]).mean()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return losses


def _orders(size: int, batch_size: int, together: int) -> Iterator[Tensor]:
    groups = torch.arange(size // together * together).view(-1, together)
    while True:
        for chosen in torch.randperm(len(groups)).split(batch_size // together):
            if len(chosen) * together == batch_size:
                yield groups[chosen].flatten()


def recalls(model: Any, pairs: Pairs) -> dict[str, float]:
    """R@1 in percent of pairs of distinct captions, by the two stages of the evaluation.

    Returns:
        `similarity i2t` and `similarity t2i`, of the first stage alone; `matched i2t` and `matched t2i`, of
        `CANDIDATES` that are matched in the second.
    """
    stages = by_stage(*matched(model, pairs))
    return {f"{stage} {way}": scores[f"{way}_R@1"] for stage, _, scores in stages for way in ("i2t", "t2i")}


def by_stage(
    matches: Matches, records: Sequence[Retrieval]
) -> Iterator[tuple[str, Matches, dict[str, float]]]:
    """Each stage of the evaluation, what it gave and its scores; every text has its image."""
    for stage, outcome in (("similarity", replace(matches, reranked=None)), ("matched", matches)):
        scores = retrieval_scores(outcome, records, {}).scores
        yield stage, outcome, {name: value for name, value in scores.items() if value is not None}


@torch.no_grad()
def matched(
    model: Any, pairs: Pairs, *, similarity_weight: float = 0.0, frame_aware: bool = False
) -> tuple[Matches, list[Retrieval]]:
    """Both stages of the evaluation, the second of `CANDIDATES`; see `weft.eval.evaluate.rerank.rerank`.

    Returns:
        What `rerank` returns, and the pairs as records: their distinct captions are the ids of both sides.
    """
    model.eval()
    records = [
        Retrieval(id=text, media=MediaRef.from_bytes(b"", text), media_id=text, text=text, text_id=text)
        for text in pairs.captions
    ]
    reader = reader_for(model.config, PairedProcessor(_Words(), partial(_shown, pairs)))
    matches = rerank(
        model,
        "pairs",
        records,
        ReaderBatches(reader, {"pairs": TextRules()}, {"pairs": Wording()}),
        candidates=CANDIDATES,
        similarity_weight=similarity_weight,
        frame_aware=frame_aware,
        batch_size=len(records),
    )
    return matches, records


class _Words:
    """The tokenizer of captions."""

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, list[list[int]]]:
        ids = _encoded(texts)
        return {"input_ids": ids.tolist(), "attention_mask": (ids != 0).long().tolist()}


def _shown(pairs: Pairs, images: Sequence[Sequence[MediaRef]]) -> dict[str, Tensor]:
    """Pixels of the images that go by captions."""
    return {"pixel_values": pairs.pixel_values[[pairs.captions.index(group[0].path) for group in images]]}


def _encoded(texts: Sequence[str]) -> Tensor:
    place = {word: index for index, word in enumerate(WORDS)}
    ids = torch.zeros(len(texts), LENGTH, dtype=torch.long)
    for row, text in enumerate(texts):
        words = ["[CLS]", *text.split(), "[SEP]"]
        ids[row, : len(words)] = torch.tensor([place[word] for word in words])
    return ids

"""Make the miniature backbone that `weft demo` adapts: a detector as vision tower, then BART on scene texts.

Run: python scripts/pretrain_miniature.py TOKENIZER_FOLDER OUT_FOLDER [--steps N]

Every constant stands in `Recipe`. Progress is saved in OUT_FOLDER/state.pt and continued from there.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scene_pretraining as pretraining
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoTokenizer, BartConfig, PreTrainedTokenizerBase, ResNetConfig, ResNetModel

from weft.core.composites import VisualSeq2Seq, VisualSeq2SeqConfig
from weft.data.scenes.render import IMAGE_SIZE, render
from weft.data.scenes.scene import COLORS, GRID_SIZE, SHAPES, SIZES, Scene, sample_scene


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights."""

    seed: int = 0
    tower_steps: int = 500
    tower_batch: int = 48
    tower_rate: float = 3e-3
    scenes: int = 16_000
    steps: int = 8_000
    # From this step on verdicts come in three pairs of words, and fillers stand between the words.
    rich_from: int = 6_000
    filler_share: float = 0.4
    single_batch: int = 64
    pair_batch: int = 32
    rate: float = 1.2e-3
    # Step and share of the rate, linear in between; the fall is steeper from the third knot on.
    knots: tuple[tuple[int, float], ...] = (
        (0, 0.0),
        (300, 1.0),
        (2_000, 7 / 9),
        (6_000, 0.0),
        (6_100, 0.55),
        (8_500, 0.0),
    )
    repeat_share: float = 0.06


Drawn = tuple[list[int], str, str]
CELLS = GRID_SIZE * GRID_SIZE
HEADS = (len(COLORS) + 1, len(SHAPES) + 1, len(SIZES) + 1)


def normalise(images: Sequence[Image.Image]) -> Tensor:
    """Images as floats of mean 0.5 and deviation 0.5, shape (batch, 3, height, width)."""
    pixels = np.stack([np.asarray(image, dtype=np.float32) for image in images])
    return torch.from_numpy(pixels / 127.5 - 1).permute(0, 3, 1, 2).contiguous()


def zoomed(scene: Scene, rng: random.Random) -> tuple[Image.Image, np.ndarray]:
    """An image of the scene, at times of a part of it, and per cell the colour, shape and size in it (0: none)."""
    scale = rng.uniform(1.0, 2.4) if rng.random() < 0.4 else 1.0
    width = IMAGE_SIZE / scale
    left, top = rng.uniform(0, IMAGE_SIZE - width), rng.uniform(0, IMAGE_SIZE - width)
    image = render(scene)
    if scale > 1.0:
        image = image.resize(
            (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, (left, top, left + width, top + width)
        )
    labels = np.zeros((CELLS, 3), dtype=np.int64)
    cell = IMAGE_SIZE / GRID_SIZE
    for item in scene.objects:
        x = ((item.column + 0.5) * cell + item.offset[0] - left) * scale
        y = ((item.row + 0.5) * cell + item.offset[1] - top) * scale
        if 0 <= x < IMAGE_SIZE and 0 <= y < IMAGE_SIZE:
            index = int(y // cell) * GRID_SIZE + int(x // cell)
            labels[index] = (
                list(COLORS).index(item.color) + 1,
                SHAPES.index(item.shape) + 1,
                SIZES.index(item.size) + 1,
            )
    return image, labels


def train_tower(recipe: Recipe, tower: ResNetModel) -> dict[str, float]:
    """Train the tower to say what stands in each cell; returns accuracy on object cells of held-out scenes."""
    heads = nn.ModuleList(nn.Linear(128, n) for n in HEADS)
    parameters = [*tower.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=recipe.tower_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.tower_rate, recipe.tower_steps)
    weights = [torch.tensor([0.3] + [1.0] * (n - 1)) for n in HEADS]
    tower.to(memory_format=torch.channels_last).train()

    def tokens(pixels: Tensor) -> Tensor:
        grid = tower(pixels.to(memory_format=torch.channels_last)).last_hidden_state
        return grid.flatten(2).mT

    for step in range(recipe.tower_steps):
        rng = random.Random(f"tower/{recipe.seed}/{step}")
        drawn = [
            zoomed(sample_scene(f"{step}-{k}", f"tower/{recipe.seed}", min_objects=1), rng)
            for k in range(recipe.tower_batch)
        ]
        pixels = normalise([image for image, _ in drawn])
        labels = torch.from_numpy(np.stack([label for _, label in drawn]))
        features = tokens(pixels + 0.03 * torch.randn_like(pixels))
        loss = sum(
            functional.cross_entropy(head(features).flatten(0, 1), labels[..., k].flatten(), weights[k])
            for k, head in enumerate(heads)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            say(f"tower {step:5d} loss {loss.item():.4f}")
    tower.eval()
    rng = random.Random("still")
    scenes = [sample_scene(str(k), "tower/held-out") for k in range(500)]
    drawn = [zoomed(scene, rng) for scene in scenes]
    labels = torch.from_numpy(np.stack([label for _, label in drawn]))
    with torch.no_grad():
        features = tokens(normalise([image for image, _ in drawn]))
        guesses = [head(features).argmax(-1) for head in heads]
    seen = labels[..., 0] > 0
    names = ("color", "shape", "size")
    return {
        n: float((g == labels[..., k])[seen].float().mean())
        for k, (n, g) in enumerate(zip(names, guesses, strict=True))
    }


def build(tokenizer: PreTrainedTokenizerBase) -> VisualSeq2Seq:
    """The untrained miniature."""
    language = BartConfig(
        vocab_size=len(tokenizer),
        d_model=128,
        encoder_layers=3,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=512,
        decoder_ffn_dim=512,
        max_position_embeddings=192,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        init_std=0.05,
        forced_eos_token_id=None,
    )
    vision = ResNetConfig(embedding_size=16, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type="basic")
    return VisualSeq2Seq(VisualSeq2SeqConfig(language, vision, feature_size=128, num_visual_tokens=CELLS))


@torch.no_grad()
def extract(model: VisualSeq2Seq, scenes: Sequence[Scene]) -> Tensor:
    """Tower features of scenes, fp16, shape (scenes, cells, 128)."""
    model.eval()
    parts = [
        model.encode_images(normalise([render(s) for s in scenes[k : k + 200]])[:, None])[:, 0].half()
        for k in range(0, len(scenes), 200)
    ]
    return torch.cat(parts)


class Texts:
    """Batches of pretraining texts, a pure function of (name, step)."""

    def __init__(self, scenes: Sequence[Scene], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> None:
        self.scenes, self.tokenizer, self.recipe = scenes, tokenizer, recipe
        words = (v.replace("Ġ", "") for v in tokenizer.get_vocab())
        self.words = sorted({w for w in words if w.isalpha() and w.isascii()})
        self.fillers = [w for w in self.words if w not in pretraining.KNOWN]

    def single(self, rng: random.Random, make: Callable | None = None, *, rich: bool = False) -> Drawn:
        """One text about one scene."""
        index = rng.randrange(len(self.scenes))
        if make is None and rng.random() < self.recipe.repeat_share:
            return ([index], *pretraining.repeat(rng, self.words))
        return self._draw([index], pretraining.SINGLE, rng, make, rich)

    def pair(self, rng: random.Random, make: Callable | None = None, *, rich: bool = False) -> Drawn:
        """One text about two scenes."""
        return self._draw(rng.sample(range(len(self.scenes)), 2), pretraining.PAIR, rng, make, rich)

    def _draw(
        self, indices: list[int], weighted: tuple, rng: random.Random, make: Callable | None, rich: bool
    ) -> Drawn:
        makers, weights = zip(*weighted, strict=True)
        make = make or rng.choices(makers, weights)[0]
        options = {"rich": True} if rich and make in (pretraining.claim, pretraining.pair_claim) else {}
        text, target = make(*(self.scenes[k] for k in indices), rng, **options)
        if rich and rng.random() < self.recipe.filler_share:
            text = pretraining.with_fillers(text, rng, self.fillers)
        return indices, text, target

    def encode(self, drawn: list[Drawn], features: Tensor) -> dict[str, Tensor]:
        """Model inputs."""
        text = self.tokenizer([d[1] for d in drawn], return_tensors="pt", padding=True)
        labels = self.tokenizer([d[2] for d in drawn], return_tensors="pt", padding=True)
        indices = torch.tensor([d[0] for d in drawn])
        return {
            "input_ids": text.input_ids,
            "attention_mask": text.attention_mask,
            "labels": labels.input_ids.masked_fill(labels.attention_mask == 0, -100),
            "visual_features": features[indices].float(),
        }


@torch.no_grad()
def evaluate(model: VisualSeq2Seq, texts: Texts, features: Tensor, size: int = 200) -> dict[str, float]:
    """Exact match on held-out scenes for every form of text."""
    model.eval()
    scores = {}
    forms = [(make, texts.single, False) for make, _ in pretraining.SINGLE]
    forms += [(make, texts.pair, False) for make, _ in pretraining.PAIR]
    forms += [(pretraining.claim, texts.single, True), (pretraining.pair_claim, texts.pair, True)]
    for make, draw, rich in forms:
        name = f"{make.__name__} (rich)" if rich else make.__name__
        rng = random.Random(f"evaluate/{name}")
        drawn = [draw(rng, make, rich=rich) for _ in range(size)]
        batch = texts.encode(drawn, features)
        batch.pop("labels")
        out = texts.tokenizer.batch_decode(
            model.generate(**batch, max_new_tokens=36, do_sample=False, num_beams=1), skip_special_tokens=True
        )
        hits = [o.strip() == d[2] for o, d in zip(out, drawn, strict=True)]
        scores[name] = sum(hits) / size
        judged = [h for h, d in zip(hits, drawn, strict=True) if d[1].startswith("claim")]
        if judged:
            scores[f"{name} (direct)"] = sum(judged) / len(judged)
    return scores


def say(text: str) -> None:
    """Print a line with the time."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def main() -> None:
    """Train the tower, then the language model, and save both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    recipe = Recipe(steps=arguments.steps)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(recipe.seed)
    tokenizer = AutoTokenizer.from_pretrained(arguments.tokenizer)
    model = build(tokenizer)
    report: dict[str, object] = {"recipe": asdict(recipe), "torch": torch.__version__}

    tower_file = out / "tower.pt"
    if tower_file.exists():
        model.vision_tower.load_state_dict(torch.load(tower_file, weights_only=True))
    else:
        say(f"tower: {train_tower(recipe, model.vision_tower)}")
        torch.save(model.vision_tower.state_dict(), tower_file)
    model.vision_tower.requires_grad_(False).eval()

    scenes = [sample_scene(str(k), f"pretraining/{recipe.seed}", min_objects=1) for k in range(recipe.scenes)]
    unseen = [sample_scene(str(k), "pretraining/held-out", min_objects=1) for k in range(1_000)]
    features, unseen_features = extract(model, scenes), extract(model, unseen)
    texts, unseen_texts = Texts(scenes, tokenizer, recipe), Texts(unseen, tokenizer, recipe)
    say("features extracted")

    decay = [p for p in model.parameters() if p.requires_grad and p.dim() > 1]
    plain = [p for p in model.parameters() if p.requires_grad and p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.98), fused=True)
    at, share_of_rate = zip(*recipe.knots, strict=True)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: float(np.interp(s + 1, at, share_of_rate)))
    start, state_file = 0, out / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        rate.load_state_dict(state["rate"])
        start = state["step"]
    running: list[float] = []
    for step in range(start, recipe.steps):
        model.train()
        model.vision_tower.eval()
        rng = random.Random(f"texts/{recipe.seed}/{step}")
        rich = step >= recipe.rich_from
        singles = texts.encode([texts.single(rng, rich=rich) for _ in range(recipe.single_batch)], features)
        pairs = texts.encode([texts.pair(rng, rich=rich) for _ in range(recipe.pair_batch)], features)
        optimizer.zero_grad()
        share = recipe.single_batch / (recipe.single_batch + recipe.pair_batch)
        losses = [model(**singles).loss * share, model(**pairs).loss * (1 - share)]
        for loss in losses:
            loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rate.step()
        running.append(sum(loss.item() for loss in losses))
        if (step + 1) % 100 == 0:
            say(f"step {step + 1:6d} loss {np.mean(running):.4f}")
            running = []
        if (step + 1) % 1_000 == 0 or step + 1 == recipe.steps:
            scores = evaluate(model, unseen_texts, unseen_features)
            say(" ".join(f"{k} {v:.2f};" for k, v in scores.items()))
            report["held-out exact match"] = scores
            partial = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save({**partial, "rate": rate.state_dict(), "step": step + 1}, out / "state.tmp")
            (out / "state.tmp").replace(state_file)
            model.save_pretrained(out / "model")
    tokenizer.save_pretrained(out / "model")
    (out / "model" / "pretraining.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Make the tokenizer of the miniature backbone: byte-level BPE in which each word of the scenes is one token.

Run: python scripts/make_miniature_tokenizer.py OUT_FOLDER
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import scene_pretraining as pretraining
from tokenizers import ByteLevelBPETokenizer
from transformers import BartTokenizer

from weft.data.scenes.captions import draw_captions
from weft.data.scenes.examples import ScenePool, draw_questions
from weft.data.scenes.pairs import draw_statements
from weft.data.scenes.questions import GQA_TEMPLATES, VQA_TEMPLATES

NUM_VISUAL_TOKENS = 36
PLAIN_WORDS = (
    "yes no does do not contain present any which who where it this that picture vqa gqa nlvr caption"
)


def corpus(seed: int = 0) -> list[str]:
    """Texts in which every word of the scenes occurs."""
    pool = ScenePool.draw("tokenizer", 1_000, seed, allow_held_out=True)
    rng = random.Random(seed)
    texts = [PLAIN_WORDS] * 50
    for templates in (VQA_TEMPLATES, GQA_TEMPLATES):
        texts += [f"{e.text} {e.target}" for e in draw_questions(templates, pool, 3_000, seed)]
    texts += [f"{e.text} {e.target}" for e in draw_statements(pool, 2_000, seed)]
    texts += [f"{e.text} {e.target}" for e in draw_captions(pool, 1_000, seed)]
    for make, _ in pretraining.SINGLE:
        texts += [" ".join(make(rng.choice(pool.scenes), rng)) for _ in range(1_000)]
    for make_pair, _ in pretraining.PAIR:
        texts += [" ".join(make_pair(*rng.sample(pool.scenes, 2), rng)) for _ in range(1_000)]
    return [*texts, *["repeat"] * 50]


def main(folder: Path) -> None:
    """Train, add the visual order tokens and save in the format of `transformers`."""
    words = sorted({w for text in corpus() for w in text.replace("?", " ").replace(",", " ").split()})
    bpe = ByteLevelBPETokenizer(add_prefix_space=True)
    bpe.train_from_iterator(
        corpus(),
        vocab_size=4_000,
        min_frequency=2,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        show_progress=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save_model(str(folder))
    tokenizer = BartTokenizer.from_pretrained(folder, add_prefix_space=True)
    order = [f"<vis_extra_id_{k}>" for k in reversed(range(NUM_VISUAL_TOKENS))]
    tokenizer.add_special_tokens({"additional_special_tokens": order})
    split = [w for w in words if len(tokenizer(w, add_special_tokens=False).input_ids) > 1]
    if split:
        raise SystemExit(f"These words are more than one token: {split}")
    tokenizer.save_pretrained(folder)
    (folder / "merges.txt").unlink(missing_ok=True)
    (folder / "vocab.json").unlink(missing_ok=True)
    sys.stdout.write(f"{len(tokenizer)} tokens, {len(words)} words of the scenes, in {folder}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Times the metrics beside the official implementations, on the same made-up data, in one process.

    python packages/eval/benchmarks/metrics_speed.py [--official-vqa PATH/vqaEval.py] [--scale 0.2]

Captions are compared with pycocoevalcap when it and Java are installed, VQA with the challenge's own script
when its path is given. Times are processor seconds, those of child processes (Java) included. Scores must
agree.
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import re
import resource
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from weft.eval.metrics import caption_scores, retrieval_from_features, vqa_accuracy

IMAGES, REFERENCES, QUESTIONS = 5_000, 5, 214_354
GALLERY_IMAGES, GALLERY_TEXTS, FEATURE_SIZE = 5_000, 25_000, 256


def processor_seconds() -> float:
    """User and system time of this process and of those it waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Result of a call and the processor seconds it took."""
    start = processor_seconds()
    result = call()
    return result, processor_seconds() - start


def row(name: str, seconds: float, official: float | None, agree: bool | None) -> None:
    """Print one line of the table."""
    ratio = "" if official is None else f"{official:9.2f} {official / seconds:8.1f}x"
    verdict = "" if agree is None else "equal" if agree else "DIFFERENT"
    sys.stdout.write(f"{name:44s} {seconds:9.2f} {ratio:20s} {verdict}\n")


def sentences(count: int, seed: int) -> Iterator[str]:
    """Captions with the word frequencies of natural ones: rank r with weight 1 / r."""
    generator = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    made = ["".join(generator.choices(letters, k=generator.randint(3, 9))) for _ in range(9_000)]
    vocabulary = ["a", "the", "of", "on", "in", "with", "man", "woman", *made]
    weights = [1 / (rank + 2) for rank in range(len(vocabulary))]
    for _ in range(count):
        words = generator.choices(vocabulary, weights, k=generator.randint(8, 14))
        yield " ".join(words).capitalize() + generator.choice([".", "", "."])


def captions(scale: float) -> None:
    """Tokenise and score captions."""
    images = int(IMAGES * scale)
    texts = list(sentences(images * (REFERENCES + 1), seed=0))
    predictions = {i: texts[i] for i in range(images)}
    references = {i: texts[images + REFERENCES * i : images + REFERENCES * (i + 1)] for i in range(images)}
    report, seconds = timed(lambda: caption_scores(predictions, references))
    official, agree = None, None
    if importlib.util.find_spec("pycocoevalcap") is not None:
        scores, official = timed(lambda: official_captions(predictions, references))
        agree = all(report.scores[name] == value for name, value in scores.items())
    row(f"captions, {images} images x {REFERENCES}: tokens, B, R, C", seconds, official, agree)


def official_captions(predictions: dict[int, str], references: dict[int, list[str]]) -> dict[str, float]:
    """The same through pycocoevalcap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    tokenizer = PTBTokenizer()
    with redirect_stdout(StringIO()):
        gold = tokenizer.tokenize(
            {key: [{"caption": text} for text in texts] for key, texts in references.items()}
        )
        made = tokenizer.tokenize({key: [{"caption": text}] for key, text in predictions.items()})
        bleu, _ = Bleu(4).compute_score(gold, made)
        rouge, _ = Rouge().compute_score(gold, made)
        cider, _ = Cider().compute_score(gold, made)
    return {f"Bleu_{n + 1}": score for n, score in enumerate(bleu)} | {"ROUGE_L": rouge, "CIDEr": cider}


def questions(scale: float, script: Path | None) -> None:
    """Score answers."""
    count = int(QUESTIONS * scale)
    generator = random.Random(1)
    answers = [
        "yes",
        "no",
        "2",
        "two",
        "red",
        "a dog",
        "dogs",
        "1,000",
        "t-shirt",
        "none",
        "on the table",
        "wii",
    ]
    answers += [f"answer {i}" for i in range(3_000)]
    references = {}
    for key in range(count):
        pool = generator.sample(answers, 4)
        given = [generator.choice(pool) for _ in range(10)]
        if generator.random() < 0.3:
            given = [pool[0]] * 10
        references[key] = {
            "answers": [{"answer": text, "answer_id": i} for i, text in enumerate(given)],
            "answer_type": "other",
            "question_type": "what",
        }
    predictions = {key: item["answers"][0]["answer"] for key, item in references.items()}
    report, seconds = timed(lambda: vqa_accuracy(predictions, references))
    official, agree = None, None
    if script is not None:
        score, official = timed(lambda: official_vqa(script, predictions, references))
        agree = score == report.value
    row(f"VQA, {count} questions", seconds, official, agree)


def official_vqa(script: Path, predictions: dict[int, str], references: dict[int, Any]) -> float:
    """Run the challenge's script; only its Python 2 print statements are changed."""
    source = re.sub(
        r"^(\s*)print (\".*\")$", r"\1print(\2)", script.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    module = types.ModuleType("official_vqa")
    with redirect_stdout(StringIO()):
        exec(compile(source, str(script), "exec"), module.__dict__)
        gold = types.SimpleNamespace(qa=references, getQuesIds=lambda: list(references))
        made = types.SimpleNamespace(qa={key: {"answer": text} for key, text in predictions.items()})
        evaluation = module.VQAEval(gold, made, n=2)
        evaluation.evaluate()
    return float(evaluation.accuracy["overall"])


@contextmanager
def peak_memory() -> Iterator[list[float]]:
    """Collect the largest resident size of the process so far, in MB."""
    result: list[float] = []
    yield result
    result.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def retrieval(scale: float) -> None:
    """Rank a gallery from features."""
    images, texts = int(GALLERY_IMAGES * scale), int(GALLERY_TEXTS * scale)
    generator = np.random.default_rng(0)
    image_features = generator.standard_normal((images, FEATURE_SIZE), dtype=np.float32)
    text_features = generator.standard_normal((texts, FEATURE_SIZE), dtype=np.float32)
    own = [list(range(5 * i, 5 * i + 5)) for i in range(images)]
    with peak_memory() as peak:
        _, seconds = timed(lambda: retrieval_from_features(image_features, text_features, own))
    row(f"retrieval, {images} x {texts}, peak {peak[0]:.0f} MB in all", seconds, None, None)


def main() -> None:
    """Run all and print one line each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--official-vqa", type=Path, help="vqaEval.py of GT-Vision-Lab/VQA")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full sizes")
    arguments = parser.parse_args()
    sys.stdout.write(f"{'':44s} {'weft, s':>9s} {'official':>9s} {'ratio':>9s}\n")
    retrieval(arguments.scale)
    captions(arguments.scale)
    questions(arguments.scale, arguments.official_vqa)


if __name__ == "__main__":
    main()

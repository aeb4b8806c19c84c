from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from weft.eval.metrics.caption.tokenizer import tokenize_all

_DROPPED = {
    "''",
    "'",
    "``",
    "`",
    "-LRB-",
    "-RRB-",
    "-LCB-",
    "-RCB-",
    ".",
    "?",
    "!",
    ",",
    ":",
    "-",
    "--",
    "...",
    ";",
}


def _questions(realdata: Path, split: str) -> list[str]:
    data = (realdata / f"timbmg+NLP1-2017-VQA/data/vqa_questions_{split}.json.gz").read_bytes()
    return [item["question"] for item in json.loads(gzip.decompress(data))["questions"]]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_eighty_thousand_real_sentences_are_tokenised_as_java_does(realdata: Path, tmp_path: Path) -> None:
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations or shutil.which("java") is None:
        pytest.skip("needs Java and pycocoevalcap")
    program = Path(package.submodule_search_locations[0]) / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    sentences = [text for split in ("train", "valid", "test") for text in _questions(realdata, split)]
    sentences += [row["desc"] for row in _lines(realdata / "jayleicn+TVRetrieval/data/tvr_val_release.jsonl")]
    moments = json.loads(
        (realdata / "LisaAnne+LocalizingMoments/data/val_data.json").read_text(encoding="utf-8")
    )
    sentences += [item["description"] for item in moments]
    for name in ("nlvr/dev/dev.json", "nlvr/test/test.json", "nlvr2/data/dev.json"):
        sentences += [row["sentence"] for row in _lines(realdata / "lil-lab+nlvr" / name)]
    sentences = [" ".join(text.splitlines()) for text in sentences if text.strip()]

    source = tmp_path / "sentences.txt"
    source.write_text("\n".join(sentences), encoding="utf-8")
    command = ["java", "-cp", str(program), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines"]
    done = subprocess.run(
        [*command, "-lowerCase", str(source)], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    expected = [
        " ".join(token for token in line.split(" ") if token not in _DROPPED)
        for line in done.stdout.split("\n")[: len(sentences)]
    ]
    wrong = sum(left != right for left, right in zip(tokenize_all(sentences), expected, strict=True))
    assert len(sentences) > 80_000
    assert wrong <= len(sentences) / 10_000

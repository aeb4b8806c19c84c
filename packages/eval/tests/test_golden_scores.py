"""The official evaluators' own outputs; `SOURCES.md` beside the data names the commands that made them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from weft.eval.metrics import caption_scores, gqa_accuracy, nlvr_accuracy, vqa_accuracy
from weft.eval.metrics.caption import tokenize


def _load(path: Path) -> Any:
    data = path.read_bytes()
    return json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)


@pytest.fixture(scope="module")
def captions(realdata: Path) -> tuple[Any, Any]:
    golden = realdata / "golden"
    return _load(golden / "didemo_val_loo.data.json.gz"), _load(golden / "didemo_val_loo.scores.json.gz")


@pytest.mark.parametrize("tokenized", [True, False], ids=["tokenised by Java", "tokenised here"])
def test_caption_scores_equal_pycocoevalcap_to_the_last_bit(
    captions: tuple[Any, Any], tokenized: bool
) -> None:
    data, golden = captions
    suffix = "_tok" if tokenized else ""
    report = caption_scores(
        {key: texts[0] for key, texts in data[f"res{suffix}"].items()},
        data[f"gts{suffix}"],
        tokenized=tokenized,
    )
    assert report.scores == {name: golden["scores"][name] for name in report.scores}
    per_image = {key: round(score, 6) for key, score in report.per_sample.items()}
    assert per_image == {key: scores["CIDEr"] for key, scores in golden["per_image"].items()}


def test_every_golden_caption_is_tokenised_as_java_does(captions: tuple[Any, Any]) -> None:
    data, _ = captions
    pairs = [
        (raw, expected)
        for side in ("gts", "res")
        for key, texts in data[side].items()
        for raw, expected in zip(texts, data[f"{side}_tok"][key], strict=True)
    ]
    assert len(pairs) > 4000
    assert [raw for raw, expected in pairs if tokenize(raw) != expected] == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("good", [0.6667, 0.4899, 0.3469, 0.0000, 0.4280, 0.5637]),
        ("bad", [0.4815, 0.2404, 0.1359, 0.0000, 0.3121, 0.2790]),
    ],
)
def test_the_example_of_clipscore_scores_as_its_page_says(
    realdata: Path, name: str, expected: list[float]
) -> None:
    folder = realdata / "jmhessel+clipscore/example"
    scores = caption_scores(_load(folder / f"{name}_captions.json"), _load(folder / "refs.json")).scores
    names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr"]
    assert [round(scores[name] or 0.0, 4) for name in names] == expected


def test_the_example_of_nlg_eval_scores_as_its_tests_say(realdata: Path) -> None:
    folder = realdata / "Maluuba+nlg-eval/examples"
    hypotheses, first, second = (
        (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("hyp", "ref1", "ref2")
    )
    references = {place: list(pair) for place, pair in enumerate(zip(first, second, strict=True))}
    report = caption_scores(dict(enumerate(hypotheses)), references, tokenized=True)
    expected = {
        "Bleu_1": 0.55, "Bleu_2": 0.428174, "Bleu_3": 0.284043, "Bleu_4": 0.201143,
        "ROUGE_L": 0.522104, "CIDEr": 1.242192,
    }  # fmt: skip
    assert {score: round(report.scores[score] or 0.0, 6) for score in expected} == expected


@pytest.mark.parametrize("name", ["all_yes", "qtype_prior", "mc_answer"])
def test_vqa_accuracy_equals_the_official_script(realdata: Path, name: str) -> None:
    annotations = _load(realdata / "timbmg+NLP1-2017-VQA/data/vqa_annotations_valid.json.gz")["annotations"]
    references = {item["question_id"]: item for item in annotations}
    golden = _load(realdata / "golden/vqa_valid.scores.json")["scores"][name]
    stored = _load(realdata / "golden/vqa_valid.preds.json.gz")["preds"]
    predictions = {
        "all_yes": lambda: dict.fromkeys(references, "yes"),
        "mc_answer": lambda: {key: item["multiple_choice_answer"] for key, item in references.items()},
        "qtype_prior": lambda: {item["question_id"]: item["answer"] for item in stored["qtype_prior"]},
    }[name]()
    report = vqa_accuracy(predictions, references)
    assert report.value == golden["overall"]
    for axis, key in (("answer_type", "perAnswerType"), ("question_type", "perQuestionType")):
        assert {group: score.score for group, score in report.groups[axis].items()} == golden[key]


@pytest.mark.parametrize("name", ["detailed_prior", "oracle80"])
def test_gqa_scores_equal_the_official_script(realdata: Path, name: str) -> None:
    questions = _load(realdata / "Adapter-Hub+xGQA/data/few_shot/en/dev.json")
    predictions = _load(realdata / "golden/gqa_xgqa_en_dev.preds.json.gz")[name]
    golden = _load(realdata / "golden/gqa_xgqa_en_dev.scores.json")["scores"][name]
    report = gqa_accuracy(predictions, questions, consistency="known")
    printed = [
        f"{score.capitalize()}: {report.scores[score]:.2f}{suffix}"
        for score, suffix in (
            ("binary", "%"), ("open", "%"), ("accuracy", "%"), ("consistency", "%"),
            ("distribution", " (lower is better)"),
        )
    ]  # fmt: skip
    assert printed == golden["summary"]
    headings = {
        "structural": "structural type",
        "semantic": "semantic type",
        "steps": "steps number",
        "words": "words number",
    }
    detail = []
    for axis, heading in headings.items():
        detail.append(f"Accuracy / {heading}:")
        groups = sorted(
            report.groups[axis].items(), key=lambda item: int(item[0]) if item[0].isdigit() else item[0]
        )
        detail += [f"  {group}: {score.score:.2f}% ({score.n} questions)" for group, score in groups]
    assert detail == golden["detail"]


def test_nlvr_scores_equal_the_official_script(realdata: Path) -> None:
    labels: dict[str, str] = {}
    with (realdata / "lil-lab+nlvr/nlvr/dev/dev.json").open(encoding="utf-8") as file:
        for line in file:
            example = json.loads(line)
            labels |= {f"{example['identifier']}-{order}": example["label"] for order in range(6)}
    with gzip.open(realdata / "golden/nlvr_pred.csv.gz", "rt", encoding="utf-8") as file:
        rows = [line.strip().split(",") for line in file]
    predictions = {name.removeprefix("dev-").removesuffix(".png"): judgement for name, judgement in rows}
    golden = _load(realdata / "golden/nlvr.scores.json")
    for given, name in (
        (predictions, "nlvr_dev_images"),
        (dict.fromkeys(labels, "true"), "nlvr_dev_alltrue"),
    ):
        report = nlvr_accuracy(given, labels)
        expected = [float(line.split("=")[1]) for line in golden[name]]
        assert [report.scores["accuracy"], report.scores["consistency"]] == [
            100 * value for value in expected
        ]

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from weft.data import list_datasets
from weft.eval.errors import EvalError, FormatError, ScoreInputError, ScoreTypeError
from weft.eval.submissions import get_submission, list_submissions, save_submission, score_predictions
from weft.eval.submissions.clip_captions import clip_caption_scores
from weft.eval.submissions.format import register_submission
from weft.eval.submissions.reading import read_csv, read_json, read_json_lines

TEN = [{"answer": "yes", "answer_id": i} for i in range(10)]
GOLD: dict[str, Any] = {
    "vqa": {"annotations": [{"question_id": 7, "answers": TEN, "answer_type": "yes/no"}]},
    "gqa": {"7": {"answer": "yes", "isBalanced": True}},
    "caption": {"annotations": [{"image_id": 7, "caption": "a cat"}, {"image_id": 7, "caption": "the cat"}]},
    "msrvtt_qa": [{"id": 7, "answer": "yes"}],
}
LINES = {
    "nlvr": {"identifier": "7-0", "label": "true"},
    "nlvr_structured": {"identifier": "7-0", "label": "true"},
    "nlvr2": {"identifier": "dev-7-0-0", "label": "True"},
    "tvqa": {"qid": 7, "answer_idx": 2},
    "clip_caption": {"clip_id": 7, "descs": [{"desc": "a cat", "type": "v"}, {"desc": "the cat"}]},
}
PREDICTIONS: dict[str, dict[Any, Any]] = {
    "vqa": {7: "yes"},
    "gqa": {"7": "yes"},
    "caption": {7: "a cat"},
    "msrvtt_qa": {7: "yes"},
    "nlvr": {f"dev-7-0-{order}.png": True for order in range(6)},
    "nlvr_structured": {"7-0": "True"},
    "nlvr2": {"dev-7-0-0": "true"},
    "tvqa": {7: 2},
    "clip_caption": {7: "a cat"},
}


def write_gold(folder: Path, task: str) -> Path:
    path = folder / "gold"
    path.write_text(json.dumps(GOLD.get(task, LINES.get(task))), encoding="utf-8")
    return path


def test_every_registered_benchmark_is_covered_here() -> None:
    assert set(list_submissions()) == set(PREDICTIONS)


@pytest.mark.parametrize("task", sorted(PREDICTIONS))
def test_what_is_written_in_the_official_format_reads_and_scores(tmp_path: Path, task: str) -> None:
    submission = get_submission(task)
    path = tmp_path / f"predictions{submission.suffix}"
    path.write_text(submission.write_predictions(PREDICTIONS[task]), encoding="utf-8")
    report = score_predictions(task, path, write_gold(tmp_path, task))
    best = 0.0 if "caption" in task else 100.0
    assert report.value == best
    assert "scored against gold, sha256" in report.notes[-1]


def test_official_files_score_as_the_official_script(realdata: Path, tmp_path: Path) -> None:
    with gzip.open(realdata / "golden/vqa_valid.preds.json.gz", "rt", encoding="utf-8") as file:
        stored = json.load(file)["preds"]["qtype_prior"]
    path = tmp_path / "predictions.json.gz"
    path.write_bytes(gzip.compress(json.dumps(stored).encode()))
    gold = realdata / "timbmg+NLP1-2017-VQA/data/vqa_annotations_valid.json.gz"
    golden = json.loads((realdata / "golden/vqa_valid.scores.json").read_text(encoding="utf-8"))
    assert score_predictions("vqa", path, gold).value == golden["scores"]["qtype_prior"]["overall"]


def test_a_partial_file_is_refused_or_said_to_be_a_subset(tmp_path: Path) -> None:
    gold = tmp_path / "gold.json"
    gold.write_text(json.dumps(GOLD["gqa"] | {"8": {"answer": "no"}}), encoding="utf-8")
    path = tmp_path / "p.json"
    path.write_text(json.dumps([{"questionId": "7", "prediction": "yes"}]), encoding="utf-8")
    with pytest.raises(ScoreInputError, match="1 are missing: '8'"):
        score_predictions("gqa", path, gold)
    assert score_predictions("gqa", path, gold, subset=True).missing == 1


def test_plain_mappings_are_read_for_captions(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"1": ["a cat"], "2": ["a dog"]}), encoding="utf-8")
    (tmp_path / "p.json").write_text(json.dumps({"1": "a cat", "2": "a dog"}), encoding="utf-8")
    assert score_predictions("caption", tmp_path / "p.json", tmp_path / "g.json").scores["ROUGE_L"] == 1


@pytest.mark.parametrize(
    ("task", "predictions", "message"),
    [
        ("vqa", None, "The file must exist"),
        ("vqa", "[", r"must hold JSON, but line 1 does not parse"),
        ("vqa", "{}", r"must hold a list of objects with question_id, answer, but holds a dict"),
        ("vqa", '[{"question_id": 1}]', r"must have question_id, answer, but 1 do not: number 0"),
        ("vqa", "[]", "must hold at least one entry, but is empty"),
        (
            "vqa",
            '[{"question_id": 7, "answer": "a"}, {"question_id": 7, "answer": "b"}]',
            "1 occur again: '7'",
        ),
        ("nlvr2", "dev-7-0-0\n", r"must have 2 cells a row, but row 1 has 1"),
        ("nlvr2", "dev-7-0-0,maybe\n", "must end in true or false, but 1 do not: 'dev-7-0-0'"),
        ("tvqa", "[]", "must map question ids to the number of an option, but holds a list"),
    ],
)
def test_prediction_files_that_are_not_in_the_format_are_refused(
    tmp_path: Path, task: str, predictions: str | None, message: str
) -> None:
    path = tmp_path / "p"
    if predictions is not None:
        path.write_text(predictions, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        score_predictions(task, path, write_gold(tmp_path, task))


@pytest.mark.parametrize(
    ("task", "gold", "message"),
    [
        ("gqa", "[]", "must map question ids to objects with `answer`"),
        ("nlvr2", '{"identifier": "dev-7-0-0"}', "must have `identifier` and `label`, but 1 do not: line 1"),
        ("nlvr2", "{", r"must hold one JSON object a line, but line 1 does not parse"),
        ("nlvr2", "3", r"must hold one JSON object a line, but line 1 is 3"),
        ("tvqa", '{"qid": 1}', "must have `qid` and `answer_idx`, but 1 do not: line 1"),
        ("caption", '{"7": "a cat"}', "must hold `annotations`, or map image ids to lists"),
    ],
)
def test_gold_files_that_are_not_in_the_format_are_refused(
    tmp_path: Path, task: str, gold: str, message: str
) -> None:
    submission = get_submission(task)
    (tmp_path / "p").write_text(submission.write_predictions(PREDICTIONS[task]), encoding="utf-8")
    (tmp_path / "g").write_text(gold, encoding="utf-8")
    with pytest.raises(FormatError, match=message):
        score_predictions(task, tmp_path / "p", tmp_path / "g")


ODD = r"must have the fields of the official files of '{}', but cannot be read: "


@pytest.mark.parametrize(
    ("task", "gold", "error", "message"),
    [
        (
            "vqa",
            [{"question_id": 7, "answers": [{"anser": "yes"}] * 10}],
            ScoreTypeError,
            "a list of answers",
        ),
        ("vqa", [{"question_id": 7, "answers": 5}], ScoreTypeError, "a list of answers"),
        ("vqa", [{"question_id": 7, "answers": TEN, "answer_type": []}], FormatError, ODD.format("vqa")),
        ("gqa", {"7": {"answer": "yes", "types": {}}}, FormatError, ODD.format("gqa")),
        ("gqa", {"7": {"answer": "yes", "types": 5}}, FormatError, ODD.format("gqa")),
        ("tvqa", {"qid": 7, "answer_idx": "two"}, FormatError, ODD.format("tvqa")),
        ("tvqa", {"qid": 7, "answer_idx": None}, FormatError, ODD.format("tvqa")),
    ],
    ids=[
        "answer misspelt",
        "no answers",
        "type a list",
        "no structural",
        "types a number",
        "option a word",
        "none",
    ],
)
def test_a_field_of_another_kind_in_annotations_is_told_as_one(
    tmp_path: Path, task: str, gold: Any, error: type[Exception], message: str
) -> None:
    submission = get_submission(task)
    (tmp_path / "p").write_text(submission.write_predictions(PREDICTIONS[task]), encoding="utf-8")
    (tmp_path / "g").write_text(json.dumps(gold), encoding="utf-8")
    with pytest.raises(error, match=message):
        score_predictions(task, tmp_path / "p", tmp_path / "g")


@pytest.mark.parametrize("choices", [[], {"7": []}, {"7": {"valid": None}}, 5], ids=repr)
def test_choices_of_another_form_are_told_as_such(tmp_path: Path, choices: Any) -> None:
    submission = get_submission("gqa")
    (tmp_path / "p").write_text(submission.write_predictions(PREDICTIONS["gqa"]), encoding="utf-8")
    with pytest.raises(EvalError, match=r"`choices` must hold|or an option holds must have the fields"):
        score_predictions("gqa", tmp_path / "p", write_gold(tmp_path, "gqa"), choices=choices)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match=r"must be UTF-8 text \(or its \.gz\)"):
        score_predictions("vqa", tmp_path / "p", write_gold(tmp_path, "vqa"))


def test_a_misspelt_task_is_answered_with_the_near_one() -> None:
    with pytest.raises(
        FormatError, match=r"`task` must be one of caption, .* but is 'nlvr3'\. Did you mean 'nlvr"
    ):
        get_submission("nlvr3")
    with pytest.raises(FormatError, match=r"Choose one of these"):
        get_submission("zzzzz")


def test_a_second_benchmark_of_one_name_is_refused() -> None:
    import dataclasses

    with pytest.raises(FormatError, match="`task` must be new, but 'vqa' is registered already"):
        register_submission(dataclasses.replace(get_submission("vqa"), suffix=".txt"))


@pytest.mark.parametrize(
    ("dataset", "predictions", "name", "text"),
    [
        ("vqav2", {"7": "yes"}, "t.submission.json", '[{"question_id": 7, "answer": "yes"}]'),
        ("tvqa", {"7": "a3", "8": "what"}, "t.submission.json", '{"7": 3, "8": -1}'),
        ("nlvr", {"dev-7-0-3": "true"}, "t.submission.csv", "dev-7-0-3.png,true\n"),
        ("tvc", {"7": "é"}, "t.submission.jsonl", '{"clip_id": 7, "descs": [{"desc": "\\u00e9"}]}\n'),
    ],
)
def test_a_data_set_has_the_file_of_its_benchmark(
    tmp_path: Path, dataset: str, predictions: dict[str, str], name: str, text: str
) -> None:
    path = save_submission(tmp_path, "t", dataset, predictions)
    assert path == tmp_path / name
    assert path.read_text(encoding="utf-8") == text
    assert save_submission(tmp_path, "t", "scenes", predictions) is None


def test_every_data_set_that_a_benchmark_names_exists() -> None:
    named = [dataset for task in list_submissions() for dataset in get_submission(task).datasets]
    assert len(set(named)) == len(named)
    assert set(named) <= set(list_datasets())


def test_clip_captions_lose_what_is_not_ascii_before_they_are_scored(tmp_path: Path) -> None:
    gold = {str(k): [f"a caf\u00e9 and {word}"] for k, word in enumerate(("dog", "cat", "sun"))}
    plain = {key: own[0].replace("\u00e9", " ") for key, own in gold.items()}
    report = clip_caption_scores(plain, gold)
    assert report.scores["Bleu_4"] == pytest.approx(1, abs=1e-6)
    path = tmp_path / "p.jsonl"
    path.write_text('{"clip_id": 1, "descs": []}\n', encoding="utf-8")
    with pytest.raises(FormatError, match=r"must have `clip_id` and `descs`.*but 1 do not: line 1"):
        score_predictions("clip_caption", path, path)


def test_submissions_may_hold_any_separator_in_their_texts(tmp_path: Path) -> None:
    said = "a\u2028cat\u0085sits"
    text = json.dumps({"clip_id": 7, "descs": [{"desc": said}]}, ensure_ascii=False)
    (tmp_path / "a.jsonl").write_bytes(text.encode() + b"\r\n")
    assert read_json_lines(tmp_path / "a.jsonl") == [json.loads(text)]


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 100_000, "nested too deeply"), ("9" * 5000, "more than 4,300 digits")],
    ids=["deep", "long number"],
)
def test_json_that_does_not_read_is_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(FormatError, match=rf"a\.json' must hold JSON, but .*{message}"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FormatError, match=rf"line 1 does not parse: .*{message}"):
        read_json_lines(tmp_path / "a.json")


def test_a_packed_submission_opens_to_so_much_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b" " * 2_000_000))
    monkeypatch.setenv("WEFT_MAX_UNPACKED_MIB", "1")
    with pytest.raises(FormatError, match=r"a\.json\.gz must open to at most 1 MiB"):
        read_json(tmp_path / "a.json.gz")


def test_cells_of_a_submission_may_be_long(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"1,{'a' * 200_000}\n")
    assert len(read_csv(tmp_path / "a.csv", 2)[0][1]) == 200_000

from __future__ import annotations

import gzip
import json
import stat
import sys
from pathlib import Path

import pytest

from weft.eval.errors import MissingToolError
from weft.eval.metrics.caption.meteor import JAR_VARIABLE, find_jar, meteor

# Stands in for the Java program: answers SCORE lines with their word counts and EVAL lines with one number
# each.
_PROGRAM = """#!{python}
import sys, time
for line in sys.stdin:
    parts = [part.strip() for part in line.strip().split("|||")]
    if parts[0] == "SCORE":
        print(len(parts[-1].split()), flush=True)
    elif "{mood}" == "silent":
        time.sleep(60)
    elif "{mood}" == "short":
        break
    else:
        numbers = [float(part) / 10 for part in parts[1:]]
        print(*numbers, sum(numbers) / len(numbers), sep="\\n", flush=True)
"""


def fake_java(folder: Path, mood: str = "well") -> str:
    path = folder / "java"
    path.write_text(_PROGRAM.format(python=sys.executable, mood=mood), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "meteor-1.5.jar"
    path.touch()
    return path


def test_scores_are_asked_for_in_order_and_gathered(tmp_path: Path, jar: Path) -> None:
    predictions = {i: "word " * (i % 5 + 1) for i in range(70)}
    report = meteor(predictions, dict.fromkeys(range(70), "a"), jar=jar, java=fake_java(tmp_path))
    assert report.per_sample[3] == 0.4
    assert report.value == pytest.approx(0.3)


def test_captions_of_several_lines_are_one_request(tmp_path: Path, jar: Path) -> None:
    predictions = {1: "a cat\nsits", 2: "a\r\ndog", 3: "one\u2028two"}
    report = meteor(
        predictions, dict.fromkeys(predictions, "a\nb"), jar=jar, java=fake_java(tmp_path), tokenized=True
    )
    assert report.per_sample[1] == pytest.approx(0.3)
    assert report.per_sample[2] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("mood", "message"),
    [("silent", "gave no answer within 0.2 seconds"), ("short", "ended before it had answered everything")],
)
def test_a_program_that_does_not_answer_is_an_error_and_never_a_zero(
    tmp_path: Path, jar: Path, mood: str, message: str
) -> None:
    java = fake_java(tmp_path, mood)
    # The interpreter itself may take longer to start than the silence that is tested.
    with pytest.raises(MissingToolError, match=message):
        meteor({1: "a"}, {1: ["a"]}, jar=jar, java=java, timeout=0.2 if mood == "silent" else 60)


def test_a_missing_java_is_named_before_captions_are_tokenised(
    jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("weft.eval.metrics.caption.texts.tokenize_all")
    with pytest.raises(MissingToolError, match="METEOR needs Java"):
        meteor({1: "a"}, {1: "a"}, jar=jar, java="nojava")


def test_missing_parts_are_named(tmp_path: Path, jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingToolError, match="METEOR needs Java, but the command 'nojava' is not on the path"
    ):
        meteor({1: "a"}, {1: "a"}, jar=jar, java="nojava")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.delenv(JAR_VARIABLE, raising=False)
    with pytest.raises(
        MissingToolError, match=r"there is none at any known place.*pip install pycocoevalcap"
    ):
        find_jar()
    monkeypatch.setenv(JAR_VARIABLE, str(jar))
    assert find_jar() == jar


@pytest.mark.slow
def test_meteor_equals_the_golden_and_published_scores(realdata: Path) -> None:
    try:
        find_jar()
    except MissingToolError as error:
        pytest.skip(str(error))
    golden = realdata / "golden"
    data = json.loads(gzip.decompress((golden / "didemo_val_loo.data.json.gz").read_bytes()))
    scores = json.loads(gzip.decompress((golden / "didemo_val_loo.scores.json.gz").read_bytes()))
    example = realdata / "jmhessel+clipscore/example"
    gold = json.loads((example / "refs.json").read_text(encoding="utf-8"))
    for name, expected in (("good", 0.3444), ("bad", 0.1861)):
        captions = json.loads((example / f"{name}_captions.json").read_text(encoding="utf-8"))
        assert round(meteor(captions, gold).value, 4) == expected
    lines = {
        name: (realdata / f"Maluuba+nlg-eval/examples/{name}.txt").read_text(encoding="utf-8").splitlines()
        for name in ("hyp", "ref1", "ref2")
    }
    pairs = dict(enumerate(map(list, zip(lines["ref1"], lines["ref2"], strict=True))))
    assert round(meteor(dict(enumerate(lines["hyp"])), pairs, tokenized=True).value, 6) == 0.295797
    report = meteor({key: texts[0] for key, texts in data["res"].items()}, data["gts"])
    assert report.value == scores["scores"]["METEOR"]
    rounded = {key: round(score, 6) for key, score in report.per_sample.items()}
    assert rounded == {key: image["METEOR"] for key, image in scores["per_image"].items()}

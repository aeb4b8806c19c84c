from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

from weft.eval.errors import MissingToolError
from weft.eval.metrics.caption.spice import JAR_VARIABLE, find_spice, spice

# Stands in for the Java program: 0.5 for every image, no number for the second.
_PROGRAM = """#!{python}
import json, sys, time
mood = "{mood}"
if mood == "slow":
    time.sleep(60)
if mood == "fails":
    sys.exit("out of memory")
asked = json.load(open(sys.argv[4]))
scores = [
    {{"image_id": one["image_id"], "scores": {{
        "All": {{"f": "nan" if one["image_id"] == 1 else 0.5}}, "Object": {{"f": 0.25}}, "Color": {{"f": "nan"}},
    }}}}
    for one in asked
]
json.dump(scores[:-1] if mood == "short" else scores, open(sys.argv[sys.argv.index("-out") + 1], "w"))
"""


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    path = tmp_path / "spice-1.0.jar"
    path.touch()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "stanford-corenlp-3.6.0.jar").touch()
    return path


def fake_java(folder: Path, mood: str = "well") -> str:
    path = folder / "java"
    path.write_text(_PROGRAM.format(python=sys.executable, mood=mood), encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_images_without_a_number_are_left_out_and_counted(tmp_path: Path, jar: Path) -> None:
    captions = {"a": "a cat", "b": "a dog", "c": "a hen"}
    report = spice(captions, captions, jar=jar, java=fake_java(tmp_path))
    assert report.scores == {"SPICE": 0.5, "Object": 0.25, "Color": None}
    assert report.notes == ("1 images have no score and are left out",)
    assert set(report.per_sample) == {"a", "c"}


@pytest.mark.parametrize(
    ("mood", "timeout", "message"),
    [
        ("slow", 0.5, r"must finish within `timeout` \(0\.5 seconds\)"),
        ("fails", 60, "ended with status 1: out of memory"),
        ("short", 60, "must return 2 scores, but returned 1"),
    ],
)
def test_a_program_that_fails_is_an_error_and_never_a_zero(
    tmp_path: Path, jar: Path, mood: str, timeout: float, message: str
) -> None:
    with pytest.raises(MissingToolError, match=message):
        spice({1: "a", 2: "b"}, {1: "a", 2: "b"}, jar=jar, java=fake_java(tmp_path, mood), timeout=timeout)


def test_a_missing_java_is_named_before_captions_are_tokenised(
    jar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("weft.eval.metrics.caption.texts.tokenize_all")
    with pytest.raises(MissingToolError, match="SPICE needs Java"):
        spice({1: "a"}, {1: "a"}, jar=jar, java="nojava")


def test_missing_parts_are_named(tmp_path: Path, jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        MissingToolError, match="SPICE needs Java, but the command 'nojava' is not on the path"
    ):
        spice({1: "a"}, {1: "a"}, jar=jar, java="nojava")
    monkeypatch.setenv(JAR_VARIABLE, str(jar))
    assert find_spice() == jar
    (tmp_path / "lib" / "stanford-corenlp-3.6.0.jar").unlink()
    with pytest.raises(MissingToolError, match=r"needs the parser stanford-corenlp-3\.6\.0\.jar in"):
        find_spice()
    monkeypatch.delenv(JAR_VARIABLE)
    with pytest.raises(
        MissingToolError, match=r"needs its program spice-1\.0\.jar, but there is none at any"
    ):
        find_spice()

"""Whatever ends a command, it says so in one message: mistakes, Ctrl-C, defects, files that cannot be written."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from weft.train.cli import main
from weft.train.cli.endings import of_every_command
from weft.train.output.progress import PlainProgress
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute

CODE = "import sys; from weft.train.cli import main; main(sys.argv[1:])"


def told(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return int(ended.value.code or 0)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*words: object, **more: object) -> None:
        raise KeyError("see http://bob:geheim@host\nand \x1b[31m more")

    monkeypatch.setattr("weft.train.recipe.files.built_in_recipes", fail)


@pytest.mark.usefixtures("fails")
def test_a_defect_is_one_message_and_its_trace_lies_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert told("recipes", "list") == 1
    said = capsys.readouterr().err
    assert said.startswith("weft: KeyError: 'see http://bob:***@host")
    assert "(in weft/train/cli/recipes.py, line " in said
    assert said.count("\n") == 1
    assert "Traceback" not in said
    (kept,) = tmp_path.glob("weft-trace-*.txt")
    assert f"The whole trace is in {kept}; --traceback prints it." in said
    assert "Traceback" in kept.read_text()
    assert "geheim" not in said + kept.read_text()


@pytest.mark.usefixtures("fails")
@pytest.mark.parametrize("words", [("--traceback", "recipes", "list"), ("recipes", "list", "--traceback")])
def test_the_whole_trace_is_printed_on_demand(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert told(*words) == 1
    said = capsys.readouterr().err
    assert said.startswith("Traceback")
    assert "geheim" not in said
    assert "\x1b" not in said


def test_options_of_every_command_stand_anywhere_and_end_at_two_dashes() -> None:
    words = ["train", "--variable", "A", "r.yaml", "--traceback", "--variable=B", "--", "--traceback"]
    assert of_every_command(words) == (["train", "r.yaml", "--", "--traceback"], ["A", "B"], True)


def test_help_names_the_options_of_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert told("--help") == 0
    shown = capsys.readouterr().out
    assert "--traceback" in shown
    assert "--variable" in shown


def test_ctrl_c_says_that_it_ended_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("weft.train.recipe.files.built_in_recipes", interrupted)
    assert told("recipes", "list") == 130
    assert capsys.readouterr().err == "\nweft: interrupted by Ctrl-C.\n"


def test_ctrl_c_in_a_run_says_how_it_goes_on(
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*words: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    monkeypatch.setattr("weft.train.runs.run.evaluate_tasks", interrupted)
    assert told("train", str(path), "training.steps=1", "training.save_every=1") == 130
    said = capsys.readouterr().err
    assert "weft: interrupted by Ctrl-C. --resume resumes it from checkpoint-1." in said
    monkeypatch.setattr("weft.train.backbones.loading.load_backbone", interrupted)
    assert told("train", str(path), "name=other") == 130
    assert "There is no checkpoint yet: --overwrite starts again." in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_that_gets_ctrl_c_prints_no_trace(values: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    command = [sys.executable, "-c", CODE, "train", str(path), "training.steps=5000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while not (Path(values["output"]) / "tiny" / "plan.json").exists() and time.monotonic() < end:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "weft: interrupted by Ctrl-C. There is no checkpoint yet" in said
    assert "Traceback" not in said


@pytest.fixture
def finished(values: dict[str, Any], tmp_path: Path) -> tuple[str, str]:
    """The folder of a finished run and its store."""
    store = str(tmp_path / "store")
    values["tracking"] = {"enabled": True, "experiment": "cli", "store": store, "model": False}
    return str(execute(load_recipe(values, ["training.steps=2"])).folder), store


def test_commands_that_write_make_folders_and_refuse_what_cannot_be_written(
    finished: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, store = finished
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    commands = {
        "--plot": ["compare", "cli", "--store", store, "--plot"],
        "--bars": ["compare", "cli", "--store", store, "--bars"],
        "--curves": ["compare", "cli", "--store", store, "--curves"],
        "--output": ["inspect", run, "--output"],
        "TARGET": ["recipes", "copy", "demo/frozen"],
    }
    for argument, words in commands.items():
        target = tmp_path / "new" / argument.strip("-") / "x.png"
        assert told(*words, str(target)) == 0
        assert target.stat().st_size > 0
        capsys.readouterr()
        for bad in ("file/x.png", "/sys/x.png", "/proc/none/x.png"):
            assert told(*words, str(tmp_path / bad)) == 2
            assert f"`{argument}` must be a file that can be written, but" in capsys.readouterr().err
    assert told(*commands["--output"], str(tmp_path / "folder")) == 2
    assert "it is a folder" in capsys.readouterr().err
    assert told(*commands["--plot"], str(tmp_path / "plot.docx")) == 2
    assert "`--plot` must end in one of" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.part*"))
    for words in (["export", run], ["import", run, "--backbone", "miniature"]):
        assert told(words[0], words[1], str(tmp_path / "file" / "x"), *words[2:]) == 2
        assert "`OUTPUT` must be a folder that can be written" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Standard output that is one."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "shown"),
    [(Terminal, "a\\x1b]0;title\\x07\\x9b2J\n"), (io.StringIO, "a\x1b]0;title\x07\x9b2J\n")],
    ids=["terminal", "file"],
)
def test_a_terminal_obeys_no_name_of_others_and_a_file_gets_it_as_it_is(
    monkeypatch: pytest.MonkeyPatch, stream: type[io.StringIO], shown: str
) -> None:
    monkeypatch.setattr("weft.train.recipe.files.built_in_recipes", lambda: ["a\x1b]0;title\x07\x9b2J"])
    output = stream()
    monkeypatch.setattr("sys.stdout", output)
    assert told("recipes", "list") == 0
    assert output.getvalue() == shown
    assert sys.stdout is output


def test_a_line_about_data_of_others_moves_no_cursor() -> None:
    lines: list[str] = []
    PlainProgress(lines.append).say("left out: \x1b[2Jx\ry")
    assert lines == ["left out: \\x1b[2Jx\\x0dy"]

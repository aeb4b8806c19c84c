"""METEOR 1.5 through the user's own Java: only the original program reproduces published numbers."""

from __future__ import annotations

import importlib.util
import os
import queue
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft.eval.errors import MissingToolError
from weft.eval.metrics.caption.java import java_command
from weft.eval.metrics.caption.texts import caption_texts
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means, sample_report

JAR_VARIABLE = "WEFT_METEOR_JAR"
_JAR = "meteor-1.5.jar"
_SEPARATOR = " ||| "
_BREAKS = re.compile(r"[\r\n]+")
# Few enough lines that neither side of the pipe fills up while the other still writes.
_LINES_AT_ONCE = 32


def find_jar(jar: Path | str | None = None) -> Path:
    """Path of the METEOR program: the argument, the variable `WEFT_METEOR_JAR`, or an installed pycocoevalcap.

    Args:
        jar: Path of `meteor-1.5.jar` with its `data` folder beside it.

    Raises:
        MissingToolError: There is none; the message names what was tried.
    """
    tried = [Path(given) for given in (jar, os.environ.get(JAR_VARIABLE)) if given]
    package = importlib.util.find_spec("pycocoevalcap")
    if package is not None and package.submodule_search_locations:
        tried += [Path(folder) / "meteor" / _JAR for folder in package.submodule_search_locations]
    for path in tried:
        if path.is_file():
            return path
    raise MissingToolError(
        f"METEOR needs the program {_JAR}, but there is none at "
        f"{', '.join(map(str, tried)) or 'any known place'}. "
        f"Install it with `pip install pycocoevalcap` or set {JAR_VARIABLE} to its path."
    )


def meteor(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    jar: Path | str | None = None,
    java: str = "java",
    tokenized: bool = False,
    timeout: float = 300.0,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """METEOR of captions; Java 8 or newer and the METEOR program must be present.

    Args:
        predictions: Image id to its one caption.
        references: Image id to its reference captions (or one of them as text).
        jar: Path of the program; see `find_jar`.
        java: Name or path of the Java command.
        tokenized: The texts are tokens joined by single spaces already.
        timeout: Seconds to wait for any one answer; the first includes loading the paraphrase table.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to image id to group name.

    Returns:
        Report with `METEOR` as a fraction.

    Raises:
        MissingToolError: Java or the program is absent, dies, stays silent, or returns fewer scores than
            asked.
        ScoreInputError: Ids do not match.

    Source:
        Denkowski and Lavie 2014, called as pycocoevalcap calls it (English, normalised, over pipes).
    """
    program, command = find_jar(jar), java_command(java, "METEOR")
    paired, candidates, groups_of_texts = caption_texts(
        predictions, references, tokenized=tokenized, subset=subset
    )
    # The program reads a request up to the end of its line.
    requests = [
        _BREAKS.sub(" ", _SEPARATOR.join(["SCORE", *texts, candidate.replace("|||", "").replace("  ", " ")]))
        for candidate, texts in zip(candidates, groups_of_texts, strict=True)
    ]
    with _process(command, program, timeout) as process:
        statistics = list(process.ask(requests, answers_each=1))
        answers = list(process.ask([_SEPARATOR.join(["EVAL", *statistics])], answers_each=len(requests) + 1))
    per_sample = {key: float(answer) for key, answer in zip(paired.ids, answers[:-1], strict=True)}
    scores, grouped = {"METEOR": float(answers[-1])}, group_means(groups or {}, per_sample)
    variant = "METEOR 1.5, English, normalised"
    return sample_report("meteor", variant, paired, scores, per_sample, grouped, unit=FRACTION)


class _Meteor:
    """A running METEOR program."""

    def __init__(self, process: subprocess.Popen[str], command: str, timeout: float) -> None:
        self._process, self._command, self._timeout = process, command, timeout
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, name="weft-meteor", daemon=True).start()

    def ask(self, requests: Sequence[str], *, answers_each: int) -> Iterator[str]:
        assert self._process.stdin is not None, "opened with a pipe"
        for start in range(0, len(requests), _LINES_AT_ONCE):
            part = requests[start : start + _LINES_AT_ONCE]
            try:
                self._process.stdin.write("\n".join(part) + "\n")
                self._process.stdin.flush()
            except OSError as error:
                raise self._failure("closed its input") from error
            for _ in range(len(part) * answers_each):
                yield self._answer()

    def _answer(self) -> str:
        try:
            answer = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            raise self._failure(f"gave no answer within {self._timeout:g} seconds") from None
        if not answer.strip():
            raise self._failure("ended before it had answered everything")
        return answer.strip()

    def _failure(self, what: str) -> MissingToolError:
        return MissingToolError(
            f"METEOR must answer every request, but {what}. Try the program by hand: `{self._command}`; it needs 2 GB "
            "of memory."
        )

    def _read(self) -> None:
        assert self._process.stdout is not None, "opened with a pipe"
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")


@contextmanager
def _process(java: str, program: Path, timeout: float) -> Iterator[_Meteor]:
    command = [java, "-Xmx2G", "-jar", str(program.absolute()), "-", "-", "-stdio", "-l", "en", "-norm"]
    process = subprocess.Popen(  # noqa: S603  (Java on a jar and texts, without a shell)
        command,
        cwd=program.absolute().parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
    )
    try:
        yield _Meteor(process, " ".join(command), timeout)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None, "opened with pipes"
            try:
                pipe.close()
            except BrokenPipeError:
                # What was not yet written no longer matters.
                continue

"""SPICE through the user's own Java: the program and its parser are never downloaded from here."""

from __future__ import annotations

import json
import math
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from weft.eval.errors import MissingToolError
from weft.eval.metrics.caption.java import java_command
from weft.eval.metrics.caption.texts import caption_texts
from weft.eval.metrics.report import FRACTION, ScoreReport, group_means, sample_report

JAR_VARIABLE = "WEFT_SPICE_JAR"
_PARSER = "stanford-corenlp-3.6.0.jar"


def find_spice(jar: Path | str | None = None) -> Path:
    """Path of the SPICE program, which has its parser in the folder `lib` beside it.

    Args:
        jar: Path of `spice-1.0.jar`; by default the variable `WEFT_SPICE_JAR`.

    Raises:
        MissingToolError: The program or its parser is absent.
    """
    given = jar or os.environ.get(JAR_VARIABLE)
    if not given or not Path(given).is_file():
        raise MissingToolError(
            f"SPICE needs its program spice-1.0.jar, but there is none at {given or 'any known place'}. "
            f"Get it from its authors and set {JAR_VARIABLE} to its path."
        )
    parser = Path(given).parent / "lib" / _PARSER
    if not parser.is_file():
        raise MissingToolError(
            f"SPICE needs the parser {_PARSER} in {str(parser.parent)!r}, but it is not there. "
            "Get CoreNLP 3.6.0 from its authors and put its two archives there."
        )
    return Path(given)


def spice(
    predictions: Mapping[Any, str],
    references: Mapping[Any, str | Sequence[str]],
    *,
    jar: Path | str | None = None,
    java: str = "java",
    memory: str = "8G",
    timeout: float = 3600.0,
    subset: bool = False,
    groups: Mapping[str, Mapping[Any, str]] | None = None,
) -> ScoreReport:
    """SPICE of captions; Java, the SPICE program and CoreNLP 3.6.0 must be present.

    Args:
        predictions: Image id to its one caption.
        references: Image id to its reference captions (or one of them as text).
        jar: Path of the program; see `find_spice`.
        java: Name or path of the Java command.
        memory: Largest heap of the program.
        timeout: Seconds for the whole call.
        subset: Score only the ids that both sides hold, and say so in the report.
        groups: Axes to average over: axis to image id to group name.

    Returns:
        Report with `SPICE` and the f-scores of its categories (`Object`, `Relation`, `Attribute`, …) as
        fractions. An image for which the program gives no number is left out of the mean, as in the COCO
        evaluation, and counted in a note.

    Raises:
        MissingToolError: Something is absent, the program fails, or it returns fewer scores than asked.
        ScoreInputError: Ids do not match.

    Source:
        Anderson et al. 2016, called as pycocoevalcap calls it.
    """
    program = find_spice(jar)
    command = [java_command(java, "SPICE"), f"-Xmx{memory}", "-jar", str(program.absolute())]
    paired, candidates, texts = caption_texts(predictions, references, tokenized=False, subset=subset)
    answers = _run(command, program, candidates, texts, timeout)
    given = {key: float(answer["All"]["f"]) for key, answer in zip(paired.ids, answers, strict=True)}
    per_sample = {key: value for key, value in given.items() if not math.isnan(value)}
    left_out = len(paired.ids) - len(per_sample)
    # Every category has a mean; "All" is SPICE itself.
    means = {name: _mean([float(answer[name]["f"]) for answer in answers]) for name in answers[0]}
    scores = {"SPICE": means.pop("All"), **means}
    notes = (f"{left_out} images have no score and are left out",) if left_out else ()
    grouped = group_means(groups or {}, per_sample)
    return sample_report(
        "spice", "SPICE 1.0", paired, scores, per_sample, grouped, unit=FRACTION, notes=notes
    )


def _run(
    command: list[str],
    program: Path,
    candidates: Sequence[str],
    references: Sequence[Sequence[str]],
    timeout: float,
) -> list[dict[str, Any]]:
    """Category to scores, for each candidate."""
    asked = [
        {"image_id": place, "test": candidate, "refs": group}
        for place, (candidate, group) in enumerate(zip(candidates, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as folder:
        question, answer, cache = (Path(folder) / name for name in ("in.json", "out.json", "cache"))
        cache.mkdir()
        question.write_text(json.dumps(asked), encoding="utf-8")
        arguments = [str(question), "-cache", str(cache), "-out", str(answer), "-subset", "-silent"]
        try:
            done = subprocess.run(  # noqa: S603  (Java on a jar and files, without a shell)
                [*command, *arguments],
                cwd=program.absolute().parent,
                capture_output=True,
                text=True,
                timeout=timeout,
            )
        except subprocess.TimeoutExpired as error:
            raise MissingToolError(
                f"SPICE must finish within `timeout` ({timeout:g} seconds), but did not. Allow it more."
            ) from error
        if done.returncode != 0 or not answer.is_file():
            last = done.stderr.strip().rpartition("\n")[2] or "no message"
            raise MissingToolError(
                f"SPICE must finish, but ended with status {done.returncode}: {last}. "
                "It needs 8 GB of memory and a Java that its parser supports."
            )
        answers = json.loads(answer.read_text(encoding="utf-8"))
    by_place = {int(answer["image_id"]): answer["scores"] for answer in answers}
    if by_place.keys() != set(range(len(asked))):
        raise MissingToolError(
            f"SPICE must return {len(asked)} scores, but returned {len(by_place)}. Run the program by hand."
        )
    return [by_place[place] for place in range(len(asked))]


def _mean(values: list[float]) -> float | None:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else None

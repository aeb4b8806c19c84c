"""What each reader can do with a model: a table out of the contract's own checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from weft.eval.readers.abilities import ABILITIES
from weft.eval.testing import reader_checks as checks
from weft.eval.testing.subject import Subject


def capabilities(subjects: Iterable[Subject]) -> dict[str, dict[str, str]]:
    """What models can do, each claim checked.

    Args:
        subjects: The models.

    Returns:
        Title to column to its content: `reader` and `learns` name the reader and its objective; each ability is
        `"yes"`, or `""` where the reader does not declare it; `trained` is `"yes"` where the model can be adapted and
        learns from rows of several tasks.

    Raises:
        AssertionError: If a reader declares what it does not do.
    """
    table = {}
    for subject in subjects:
        reader = subject.reader
        checks.check_own_loss(subject)
        row = {"reader": reader.name, "learns": reader.objective}
        for ability in ABILITIES:
            row[ability] = ""
            if ability in reader.abilities:
                checks.ABILITY_CHECKS[ability](subject)
                row[ability] = "yes"
        row["trained"] = ""
        if subject.method is not None:
            check = checks.check_mixed if reader.objective == "generation" else checks.check_adapted
            check(subject)
            row["trained"] = "yes"
        table[subject.title] = row
    return table


def markdown(table: Mapping[str, Mapping[str, str]]) -> str:
    """A table as Markdown, a model a line.

    Args:
        table: From `capabilities`; at least one model.

    >>> print(markdown({"clip": {"reader": "dual_encoder", "embed": "yes"}}))
    | model | reader | embed |
    |---|---|---|
    | clip | dual_encoder | yes |
    """
    columns = list(next(iter(table.values())))
    lines = [["model", *columns], *([title, *row.values()] for title, row in table.items())]
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * (len(columns) + 1), *written[1:]])

"""Numbers that others printed, one CSV a table, each row with its source and how sure it is.

Rows are recalled from no memory: each was read in a table, a log or a figure, or quotes one, and says which. The own
table of VL-Adapter and the results of XMAdapter could not be read and are not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path

from weft.data.errors import near_matches
from weft.eval.compare.comparison import Comparison
from weft.eval.compare.row import Row
from weft.eval.compare.text import rows_from_csv
from weft.eval.errors import ComparisonError

_SUFFIX = ".csv"


def published_tables() -> tuple[str, ...]:
    """Names of the tables that are part of weft, alphabetically."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(_SUFFIX) for file in files if file.name.endswith(_SUFFIX)))


def published_rows(table: Path | str) -> list[Row]:
    """Read a table of published numbers.

    Args:
        table: One of `published_tables()`, or a CSV file in the form of `rows_from_csv`.

    Raises:
        ComparisonError: There is no such table, it cannot be read, or a row does not say where it was printed.
    """
    names = published_tables()
    if str(table) in names:
        text = resources.files(__name__).joinpath(f"{table}{_SUFFIX}").read_text(encoding="utf-8")
    elif Path(table).is_file():
        try:
            text = Path(table).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ComparisonError(
                f"`table` must be a CSV file in UTF-8, but {str(table)!r} cannot be read: {error}. Export it again."
            ) from error
    else:
        near = near_matches(str(table), names, limit=1)
        raise ComparisonError(
            f"`table` must be one of {', '.join(names)}, or a CSV file, but is {str(table)!r}. "
            + (f"Did you mean {near[0]!r}?" if near else "Choose one of these.")
        )
    rows = rows_from_csv(text)
    unsaid = [row.method for row in rows if not row.published]
    if unsaid:
        raise ComparisonError(
            f"Each row of {str(table)!r} must say in `published` where it was printed and how sure it is, but "
            f"{len(unsaid)} do not, such as {unsaid[0]!r}. Fill the column."
        )
    return rows


def with_published(comparison: Comparison, tables: Sequence[Path | str]) -> Comparison:
    """A comparison of our runs with the rows of `published_rows` beside them, for the tasks it has.

    Published rows are never marked best and stay off Pareto fronts.

    Raises:
        ComparisonError: A table has no row for any task of the comparison.
    """
    for table in tables:
        rows = published_rows(table)
        kept = []
        for row in rows:
            scores = {task: value for task, value in row.scores.items() if task in comparison.tasks}
            if scores:
                kept.append(replace(row, scores=scores))
        if not kept:
            found = dict.fromkeys(task for row in rows for task in row.scores)
            raise ComparisonError(
                f"`tables` must share tasks with the comparison ({', '.join(comparison.tasks)}), but {str(table)!r} "
                f"has {', '.join(found)}. Choose another table, or name your tasks alike."
            )
        comparison = comparison.with_rows(kept)
    return comparison

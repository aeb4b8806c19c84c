"""`weft inspect`: where a run goes wrong, as one page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from weft.train.cli.console import STORE_HELP, existing_store
from weft.train.errors import RunError, near
from weft.train.output.files import written

if TYPE_CHECKING:
    from weft.eval.report import PredictionTable

RUN_HELP = "Folder of a finished run, or the id of a tracked one."


def inspect(
    run: Annotated[str, typer.Argument(metavar="RUN", help=RUN_HELP)],
    against: Annotated[
        str | None, typer.Option(help="A second run (folder or id): show where the two disagree.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Show only these tasks (may be repeated).")] = None,
    store: Annotated[str | None, typer.Option(help=STORE_HELP)] = None,
    output: Annotated[Path, typer.Option(help="The page to write.")] = Path("inspection.html"),
) -> None:
    """Show where a run goes wrong: by question type and answer, confusions, worst examples with pictures."""
    from weft.eval.report import inspect_html

    tables = _chosen(_tables(run, store), task)
    other = None if against is None else _tables(against, store)
    page = inspect_html(tables, title=run, other=other, other_title=against or "")
    with written(output, "--output") as partial:
        partial.write_text(page, encoding="utf-8", errors="backslashreplace")
    for name, table in tables.items():
        mean = sum(row.score for row in table.rows) / len(table.rows)
        sys.stdout.write(f"{name}: {len(table.rows)} samples, mean {mean:.2f} of {table.best:g}\n")
    sys.stdout.write(f"{output}\n")


def _tables(run: str, store: str | None) -> dict[str, PredictionTable]:
    from weft.eval.report import tables_in, tables_of_run

    if Path(run).is_dir():
        return tables_in(run)
    return tables_of_run(existing_store(store), run)


def _chosen(tables: dict[str, PredictionTable], names: list[str] | None) -> dict[str, PredictionTable]:
    for name in names or []:
        if name not in tables:
            raise RunError(
                f"`--task` must name a task of the run ({', '.join(tables)}), but is {name!r}. {near(name, tables)}"
            )
    return {name: table for name, table in tables.items() if not names or name in names}

"""`weft data`: which data sets there are, what they need, whether a folder has it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="List, describe and check data sets.", no_args_is_help=True)


@app.command("list")
def list_all() -> None:
    """List the data sets that weft can read."""
    from weft.data import dataset_spec, list_datasets

    for name in list_datasets():
        spec = dataset_spec(name)
        sys.stdout.write(f"{name:<18} {spec.task:<11} {spec.summary}\n")


@app.command()
def show(name: str) -> None:
    """Describe a data set: task, splits, options, licence, and how to get it."""
    from weft.data import dataset_spec

    spec = dataset_spec(name)
    expected = ", ".join(f"{split} {count:,}" for split, count in spec.expected.items())
    rows = {
        "task": spec.task,
        "summary": spec.summary,
        "splits": ", ".join(spec.splits) or "named by you",
        "records": expected or "not stated",
        "options": ", ".join(f"{key}={value!r}" for key, value in spec.options.items()) or "none",
        "licence": spec.licence,
        "citation": spec.citation or "none",
        "how to get": spec.how_to_get,
    }
    width = max(map(len, rows))
    sys.stdout.write("".join(f"{key:<{width}}  {value}\n" for key, value in rows.items()))


@app.command()
def check(
    name: str,
    root: Annotated[Path, typer.Argument(help="Where the official files lie.")],
) -> None:
    """Read every split of a data set and compare its number of records with what is stated."""
    from weft.data import dataset_spec, load_dataset
    from weft.data.errors import MissingFileError, WeftDataError

    spec = dataset_spec(name)
    faults = 0
    for split in spec.splits:
        try:
            found = len(load_dataset(name, root=root, split=split))
        except MissingFileError as error:
            sys.stdout.write(f"{split}: missing\n{error}\n")
            faults += 1
            continue
        except WeftDataError as error:
            sys.stdout.write(f"{split}: wrong\n{error}\n")
            faults += 1
            continue
        wanted = spec.expected.get(split)
        verdict = (
            "as stated"
            if wanted == found
            else "no number stated"
            if wanted is None
            else f"stated are {wanted:,}"
        )
        faults += wanted is not None and wanted != found
        sys.stdout.write(f"{split}: {found:,} records, {verdict}\n")
    if faults:
        sys.exit(2)

"""`weft data`: which data sets there are, what they need, whether a folder has it, and Parquet shards of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.train.errors import RunError, near
from weft.train.output.files import written

app = typer.Typer(help="List, describe, check and convert data sets.", no_args_is_help=True)
_CLASSES = 20
MEDIA = ("none", "sample", "all")
ROOT_HELP = "Folder, archive or URL of the official files."
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="KEY=VALUE", help="Option of the data set (may be repeated)."),
]


@app.command("list")
def list_all() -> None:
    """List the data sets that weft can read."""
    from weft.data.checks import describe_datasets

    for facts in describe_datasets():
        records = sum(facts.sizes.values())
        shown = f"{records:,}" if records else "-"
        sys.stdout.write(
            f"{facts.name:<18} {facts.record_type:<11} {shown:>11}  {facts.licence:<24.24} {facts.summary}\n"
        )


@app.command()
def show(
    name: str,
    root: Annotated[str | None, typer.Argument(help=f"{ROOT_HELP} Draws some records.")] = None,
    split: Annotated[str, typer.Option(help="Split to draw records of.")] = "train",
    output: Annotated[
        Path | None, typer.Option(help="PNG to draw records into; by default NAME.png where a root is given.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Records to draw, spread over the split.")] = 12,
    option: Options = None,
) -> None:
    """Describe a data set (task, splits, options, licence, how to get it), and draw some of its records."""
    from weft.data.checks import describe_dataset

    facts = describe_dataset(name)
    rows = {
        "record_type": facts.record_type,
        "summary": facts.summary,
        "splits": ", ".join(facts.splits) or "named by you",
        "records": ", ".join(f"{key} {size:,}" for key, size in facts.sizes.items()) or "not stated",
        "options": ", ".join(f"{key}={value!r}" for key, value in facts.options.items()) or "none",
        "licence": facts.licence,
        "citation": facts.citation or "none",
        "on the hub": ", ".join(facts.hub) or "nothing configured",
        "how to get": facts.how_to_get,
    }
    width = max(map(len, rows))
    sys.stdout.write("".join(f"{key:<{width}}  {value}\n" for key, value in rows.items()))
    if root is not None or output is not None:
        sys.stdout.write(
            f"{_draw(name, root, split, output or Path(f'{name}.png'), count, _parsed(option))}\n"
        )


def _draw(name: str, root: str | None, split: str, output: Path, count: int, options: dict[str, Any]) -> Path:
    from weft.data import load_dataset
    from weft.data.records.contact_sheet import contact_sheet

    records: Any = load_dataset(name, root, split, **options)
    chosen = [records[k] for k in range(0, len(records), max(1, len(records) // count))][:count]
    sheet = contact_sheet(chosen)
    with written(output, "--output") as partial:
        sheet.save(partial, "PNG")
    return output


@app.command()
def check(
    name: str,
    root: Annotated[str, typer.Argument(help=ROOT_HELP)],
    split: Annotated[list[str] | None, typer.Option(help="Only these splits (may be repeated).")] = None,
    media: Annotated[
        str, typer.Option(help="Which media to look at: none, a sample (decoded), or all (a sample decoded).")
    ] = "sample",
    option: Options = None,
) -> None:
    """Read a data set and name every missing or odd file, malformed row and unexpected count."""
    from weft.data.checks import check_dataset

    if media not in MEDIA:
        raise RunError(f"`--media` must be one of {', '.join(MEDIA)}, but is {media!r}. {near(media, MEDIA)}")
    found = check_dataset(name, root, split, media=media, **_parsed(option))  # type: ignore[arg-type]
    for one in found.splits:
        stated = "no number stated" if one.expected is None else f"{one.expected:,} stated"
        count = "cannot be read" if one.found is None else f"{one.found:,} records, {stated}"
        looked = f", {one.media_checked:,} media looked at" if one.media_checked else ""
        sys.stdout.write(f"{one.split}: {count}{looked}\n{_classes(one.classes)}")
        sys.stdout.write("".join(f"  {note}\n" for note in one.notes))
        for problem in one.problems:
            sys.stdout.write("".join(f"  {line}\n" for line in problem.split("\n")))
    if not found.ok:
        sys.exit(2)


@app.command()
def convert(
    name: str,
    root: Annotated[str, typer.Argument(help=ROOT_HELP)],
    target: Annotated[Path, typer.Argument(help="A new folder, or that of an unfinished conversion.")],
    split: Annotated[str, typer.Option(help="Split to convert.")] = "train",
    rows_per_shard: Annotated[
        int, typer.Option(min=1, help="Choose it for shards of 100 to 256 MB.")
    ] = 2_000,
    media: Annotated[bool, typer.Option(help="Put images and videos into the shards.")] = True,
    engine: Annotated[
        str, typer.Option(help="serial, processes, or ray (pip install 'ray[data]').")
    ] = "serial",
    workers: Annotated[int, typer.Option(min=1, help="Processes, or parallel tasks on Ray.")] = 2,
    option: Options = None,
) -> None:
    """Write Parquet shards with an index and checksums; called again after a crash, it resumes."""
    from weft.data import load_dataset
    from weft.data.shards.convert import convert as write_shards

    records: Any = load_dataset(name, root, split, **_parsed(option))
    made = write_shards(
        records,
        target,
        rows_per_shard=rows_per_shard,
        embed_media=media,
        engine=engine,  # type: ignore[arg-type]
        workers=workers,
    )
    sys.stdout.write(f"{len(made):,} records in {len(list(target.glob('*.parquet')))} shards\n{target}\n")


def _classes(counts: Mapping[str, int]) -> str:
    """A line with classes and their records, the first ones by name."""
    if not counts:
        return ""
    shown = [f"{name} {count:,}" for name, count in list(counts.items())[:_CLASSES]]
    more = [f"and {len(counts) - len(shown):,} more"] if len(counts) > len(shown) else []
    return f"  {len(counts):,} classes: {', '.join([*shown, *more])}\n"


def _parsed(options: list[str] | None) -> dict[str, Any]:
    """`key=value` entries, with values read as YAML."""
    import yaml

    from weft.train.recipe.plain_yaml import read_plain_yaml

    found: dict[str, Any] = {}
    for entry in options or []:
        key, sign, value = entry.partition("=")
        if not key or not sign:
            raise RunError(f"`--option` must read KEY=VALUE, but is {entry!r}. Write, say, languages=[de].")
        if key in found:
            raise RunError(f"`--option` must name each key once, but {key!r} comes twice. Leave one out.")
        try:
            found[key] = read_plain_yaml(value)
        except yaml.YAMLError as error:
            raise RunError(f"The value of `--option` must be YAML, but {entry!r} is not: {error}") from None
    return found

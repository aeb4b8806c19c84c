"""`weft encoder`: pretrained encoders out of packages that pip installs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Build pretrained encoders out of packages that pip installs, where no hub can be reached.",
    no_args_is_help=True,
)


class Projection(StrEnum):
    """What takes texts into the space of images."""

    LINEAR = "linear"
    KERNEL = "kernel"


@app.command("list")
def list_encoders() -> None:
    """List the encoders that can be built."""
    from weft.train.backbones.packaged.build import ENCODERS

    sys.stdout.write("\n".join(ENCODERS) + "\n")


@app.command()
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="One of those that `weft encoder list` names.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="A new folder, which recipes then name.")],
    projection: Annotated[
        Projection,
        typer.Option(help="Regression from texts to the space of images; kernel is the better one."),
    ] = Projection.LINEAR,
) -> None:
    """Make an encoder of installed packages, whose files are checked by their SHA-256."""
    from weft.train.backbones.packaged.build import build_encoder

    build_encoder(name, output, projection.value)
    sys.stdout.write(f"{output}\n")

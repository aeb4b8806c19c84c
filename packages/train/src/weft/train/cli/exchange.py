"""`weft export` and `weft import`: adapters for other libraries, and from them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

OutputArgument = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write.")]


def export(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="Folder of a finished run, or of a saved adapter.")
    ],
    output: OutputArgument,
    task: Annotated[str | None, typer.Option(help="The task to write, where tasks differ.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Folder or hub id of the model; a run knows its own.")
    ] = None,
) -> None:
    """Write the LoRA, DoRA or (IA)³ of one task in PEFT's format."""
    from weft.train.runs.share import export_adapter

    export_adapter(adapter, output, backbone=backbone, task=task)
    sys.stdout.write(f"{output}\n")


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="What PEFT or AdapterHub saved, with safetensors.")
    ],
    output: OutputArgument,
    backbone: Annotated[
        str, typer.Option(help="Folder or hub id of the model that the adapter was trained on.")
    ],
    task: Annotated[str, typer.Option(help="Name that its weights get.")] = "default",
) -> None:
    """Read LoRA, DoRA or (IA)³ of PEFT, or bottleneck adapters of AdapterHub, and save them as weft does."""
    from weft.train.runs.share import import_adapter

    plan = import_adapter(source, output, backbone=backbone, task=task)
    sites, trainable = len(plan["sites"]), plan["trainable_parameters"]
    sys.stdout.write(f"{output}: {trainable:,} parameters at {sites} sites\n")

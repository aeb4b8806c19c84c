"""`weft export` and `weft import`: adapters for other libraries, and from them."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

OutputArgument = Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder to write.")]


class Target(StrEnum):
    """What an export is for."""

    peft = "peft"
    vllm = "vllm"
    merged = "merged"


def export(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="Folder of a finished run, or of a saved adapter.")
    ],
    output: OutputArgument,
    tasks: Annotated[str, typer.Option(help="Tasks to write, parted by commas.")] = "all",
    target: Annotated[
        Target,
        typer.Option("--for", help="PEFT's format, what vLLM takes of it, or plain merged models."),
    ] = Target.peft,
    split: Annotated[
        bool,
        typer.Option("--split", help="Put what is trained in full into a base model beside the adapters."),
    ] = False,
    verify: Annotated[
        int,
        typer.Option(
            min=0, help="Compare so many records of each task with the run; exit code 2 if any differs."
        ),
    ] = 0,
    task: Annotated[str | None, typer.Option(help="One task, into OUTPUT itself.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Folder or hub id of the model; a run knows its own.")
    ] = None,
) -> None:
    """Write tasks of a run for another library, a folder for each, or one where all share, and prove it there."""
    from weft.train.errors import RunError
    from weft.train.runs.exporting.launch import launch_lines
    from weft.train.runs.exporting.verify import summary, verify_export
    from weft.train.runs.exporting.writing import export_run, is_run, processor_settings

    if task is not None and tasks != "all":
        raise RunError("`--task` must be left out with `--tasks`, but both are given. Take one of them.")
    if verify and not is_run(adapter):
        raise RunError(
            f"`--verify` needs the folder of a finished run, whose records it asks, but {adapter} is none. Leave it "
            "out, or give the run."
        )
    chosen = [task] if task is not None else None if tasks == "all" else [*map(str.strip, tasks.split(","))]
    manifest = export_run(adapter, output, target=target.value, tasks=chosen, backbone=backbone, split=split)
    sys.stdout.write(f"{output}\n")
    for line in launch_lines(manifest, output, processor_settings(adapter)):
        sys.stdout.write(f"{line}\n")
    if verify:
        sys.stdout.write(f"{summary(verify_export(adapter, output, verify))}\n")


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
    from weft.train.runs.exchange import import_adapter

    plan = import_adapter(source, output, backbone=backbone, task=task)
    sites, trainable = len(plan["sites"]), plan["trainable_parameters"]
    sys.stdout.write(f"{output}: {trainable:,} parameters at {sites} sites\n")

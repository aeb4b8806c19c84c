"""`weft export` and `weft import`: adapters for other libraries, and from them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from weft.train.errors import RunError

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
    tasks: Annotated[str, typer.Option(help="Tasks to write, comma-separated.")] = "all",
    target: Annotated[
        Target,
        typer.Option("--for", help="PEFT's format, the part of it that vLLM reads, or plain merged models."),
    ] = Target.peft,
    split: Annotated[
        bool,
        typer.Option("--split", help="Put what is trained in full into a base model beside the adapters."),
    ] = False,
    verify: Annotated[
        int,
        typer.Option(
            min=0, help="Compare this many records of each task with the run; exit code 2 if any differs."
        ),
    ] = 0,
    push: Annotated[
        str | None, typer.Option(help="Hub repository to push the export to, such as me/adapter.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="Licence that the model card names, such as apache-2.0.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="One task, into OUTPUT itself.")] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Folder or hub id of the model; a run knows its own.")
    ] = None,
) -> None:
    """Write tasks of a run for another library, a folder for each, or one where all share, and prove it there."""
    chosen = _chosen(task, tasks)
    how = {"target": target.value, "tasks": chosen, "backbone": backbone, "split": split, "licence": licence}
    for line in _export(adapter, output, verify, push, how):
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    if push is not None:
        from weft.train.runs.exporting.push import push as put

        sys.stdout.write(f"{put(output, push, private=not public)}\n")


def _chosen(task: str | None, tasks: str) -> list[str] | None:
    """The tasks that two options name; None stands for all."""
    if task is not None and tasks != "all":
        raise RunError("`--task` must be left out with `--tasks`, but both are given. Take one of them.")
    if task is not None:
        return [task]
    return None if tasks == "all" else [*map(str.strip, tasks.split(","))]


def _export(adapter: Path, output: Path, verify: int, push: str | None, how: dict[str, Any]) -> Iterator[str]:
    """Export, and give the lines to print; how as for `export_run`."""
    from weft.train.runs.exporting.launch import launch_lines
    from weft.train.runs.exporting.push import check_public, check_repository
    from weft.train.runs.exporting.verify import summary, verify_export
    from weft.train.runs.exporting.writing import export_run, is_run, processor_settings

    if (verify or push is not None) and not is_run(adapter):
        option = "--verify" if verify else "--push"
        raise RunError(
            f"`{option}` needs the folder of a finished run, with its recipe, but {adapter} is none. Leave it out, or "
            "give the run."
        )
    if push is not None:
        check_repository(push)
    manifest = export_run(adapter, output, repository=push, **how)
    yield str(output)
    yield from launch_lines(manifest, output, processor_settings(adapter))
    if push is not None:
        check_public(manifest)
    if verify:
        yield summary(verify_export(adapter, output, verify))


def import_(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder that PEFT or AdapterHub saved, with safetensors.")
    ],
    output: OutputArgument,
    backbone: Annotated[
        str, typer.Option(help="Folder or hub id of the model that the adapter was trained on.")
    ],
    task: Annotated[str, typer.Option(help="Name of the task that its weights become.")] = "default",
) -> None:
    """Read LoRA, DoRA or (IA)³ of PEFT, or bottleneck adapters of AdapterHub, and save them as weft does."""
    from weft.train.runs.exchange import import_adapter

    plan = import_adapter(source, output, backbone=backbone, task=task)
    sites, trainable = len(plan["sites"]), plan["trainable_parameters"]
    sys.stdout.write(f"{output}: {trainable:,} parameters at {sites} sites\n")

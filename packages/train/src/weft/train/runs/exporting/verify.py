"""`weft export --verify`: records asked of the run and of the export, and whatever differs named."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from weft.train.errors import RunError
from weft.train.output.result import write_json
from weft.train.output.run_files import as_written
from weft.train.runs.exporting.differences import ALLOWED, Found, logits_apart, modules_apart
from weft.train.runs.exporting.manifest import Manifest, read_manifest
from weft.train.runs.exporting.outputs import Asked, called
from weft.train.runs.exporting.run_outputs import OfRun
from weft.train.runs.exporting.targets import OfTarget, expected, target_of

REPORT = "verify.json"
_LIBRARIES = ("weft-core", "torch", "transformers", "peft", "vllm")


class CrossingError(RunError):
    """An export computes something else than its run."""


def verify_export(folder: Path, output: Path, count: int) -> dict[str, Any]:
    """Compare an export with its run, in the target's own code, and write the report beside the export.

    Args:
        folder: Folder of the run.
        output: The export.
        count: Records of each task, from the validation split, or the test split where there is none.

    Returns:
        The report.

    Raises:
        CrossingError: If anything differs, with every difference; the report is written before.
        RunError: If the run has no records to compare, or a library is absent.
    """
    manifest = read_manifest(output)
    run = OfRun(folder, count)
    dtype = next(run.model.parameters()).dtype
    reports = {task: _compared(run, output, manifest, task, ALLOWED[dtype]) for task in manifest.tasks}
    report = {
        "target": manifest.target,
        "compared_in": "transformers" if manifest.target == "merged" else "PEFT",
        "dtype": str(dtype).removeprefix("torch."),
        "versions": _versions(),
        "tasks": reports,
    }
    write_json(output / REPORT, report)
    faults = [f"{task}: {fault}" for task, own in reports.items() for fault in own["faults"].values()]
    if faults:
        told = "\n".join(f"- {fault}." for fault in faults)
        raise CrossingError(
            f"the export must compute what the run does, but in {output} it does not. {output / REPORT} has the whole "
            f"report.\n{told}"
        )
    return report


def summary(report: Mapping[str, Any]) -> str:
    """A line for each task of a report of `verify_export` without faults."""
    lines = []
    for task, own in report["tasks"].items():
        logits, modules = own["logits"]["largest_difference"], own["modules"]["took_effect"]
        lines.append(
            f"{task}: {own['records']} {own['split']} records the same in {report['compared_in']}; logits differ by at "
            f"most {logits:.1g} of the largest; {modules} modules took effect"
        )
    return "\n".join(lines)


def _compared(run: OfRun, output: Path, manifest: Manifest, task: str, allowed: float) -> dict[str, Any]:
    with as_written(output, "Export it again."):
        target = target_of(output, manifest, task, run)
        wanted, acting = expected(run, task, manifest), target.acting()
    found = Found()
    wrong: tuple[Any, Asked] | None = None
    with called(run.model, set(wanted)) as of_run, called(_plain(target), set(acting)) as of_export:
        for record in run.records[task]:
            theirs = target.ask(record)
            found.add(run.ask(task, record), theirs, f"{run.splits[task]} record {record.id}", allowed)
            if wrong is None and "logits" in found.faults:
                wrong = (record, theirs)
    modules = modules_apart(wanted, acting, {"run": of_run, "export": of_export})
    if modules is not None:
        found.faults["modules"] = modules
    if wrong is not None and (other := _other_task(run, task, *wrong, allowed)) is not None:
        found.faults["task"] = (
            f"it computes what the run does for task {other!r}, as where folders are swapped"
        )
    return {
        "records": found.records,
        "split": run.splits[task],
        "equal": found.equal,
        "logits": {"largest_difference": found.largest, "allowed": allowed},
        "modules": {"in_run": len(set(wanted) & of_run), "took_effect": len(set(acting) & of_export)},
        "merging_error": manifest.tasks[task].error,
        "faults": found.faults,
    }


def _plain(target: OfTarget) -> Any:
    """The model whose module paths are those of a plain one."""
    model = target.model
    return model.base_model.model if hasattr(model, "peft_config") else model


def _other_task(run: OfRun, task: str, record: Any, theirs: Asked, allowed: float) -> str | None:
    """The task of the run whose units the export has instead, or None."""
    for other in run.model.weft.tasks:
        if other != task and logits_apart(run.ask(task, record, as_task=other), theirs) <= allowed:
            return str(other)
    return None


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found

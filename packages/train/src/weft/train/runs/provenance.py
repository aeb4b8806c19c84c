"""What a run came from and what it took: the commit, its data, and the machine while it ran."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from weft.train.preflight.tasks import TaskData
from weft.train.processes import Processes

_MEBI = 2**20


def source_tags(folder: Path | None = None) -> dict[str, str]:
    """Tags under which MLflow shows where a run came from: the program, and the commit it was started in.

    Args:
        folder: Folder that may lie in a git repository; by default the current one.

    Returns:
        The tags; those of git are absent outside of repositories and where there is no git. Changes that are not
        committed are said in `weft.git.changed`.
    """
    tags = {
        "mlflow.source.name": "weft train",
        "mlflow.source.type": "LOCAL",
        "weft.version": version("weft-train"),
    }
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is not None:
        tags["mlflow.source.git.commit"] = commit
        tags["weft.git.changed"] = str(
            bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        ).lower()
    return tags


def _git(folder: Path | None, *words: str) -> str | None:
    try:
        done = subprocess.run(  # noqa: S603  (git on our own sources, without a shell)
            ["git", *words],  # noqa: S607  (whichever git the user has)
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def data_params(tasks: Mapping[str, TaskData]) -> dict[str, str]:
    """Number and fingerprint of the records of every split, which are equal only for the same records in order."""
    return {
        f"data.{name}.{role}": f"{len(records)} records, sha256 {records.fingerprint()}{_left_out(data, role)}"
        for name, data in tasks.items()
        for role, records in data.splits.items()
    }


def _left_out(data: TaskData, role: str) -> str:
    left = {} if role != "train" else data.left_out
    return "".join(f", {count} left out with {reason}" for reason, count in left.items())


def system_metrics(processes: Processes, folder: Path) -> dict[str, float]:
    """How busy the machine is, under the names that MLflow draws as system metrics.

    Args:
        processes: The processes of the run; the device of this one is looked at.
        folder: A folder on the disk that is looked at.
    """
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(folder))
    values = {
        "cpu_utilization_percentage": psutil.cpu_percent(),
        "system_memory_usage_megabytes": (memory.total - memory.available) / _MEBI,
        "system_memory_usage_percentage": memory.percent,
        "disk_available_megabytes": disk.free / _MEBI,
        "disk_usage_percentage": disk.percent,
    }
    if processes.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(processes.device)
        values["gpu_0_memory_usage_megabytes"] = (total - free) / _MEBI
        values["gpu_0_memory_usage_percentage"] = 100 * (total - free) / total
    return {f"system/{name}": value for name, value in values.items()}

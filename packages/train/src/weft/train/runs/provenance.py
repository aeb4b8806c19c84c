"""What a run came from and what it took: the commit, its data, and the machine while it ran."""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

from weft.train.preflight.tasks import TaskData
from weft.train.processes import Processes
from weft.train.recipe.training import Recipe

_MEBI = 2**20
_RECORDS = re.compile(r"(\d+) records, sha256 ([0-9a-f]+)")


def source_tags(folder: Path | None = None) -> dict[str, str]:
    """Tags under which MLflow shows where a run came from: the program, and the commit it was started in.

    Those of git are absent outside of repositories (by default, of one that the current folder is in) and where there
    is no git. Changes that are not committed are said in `weft.git.changed`.
    """
    tags = {
        "mlflow.source.name": "weft train",
        "mlflow.source.type": "LOCAL",
        "weft.version": version("weft-train"),
        **_user(),
    }
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is not None:
        changed = bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))
        tags |= {"mlflow.source.git.commit": commit, "weft.git.changed": str(changed).lower()}
    return tags


def _user() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # an account without a name, as in some containers
        return {}


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


def data_sets(recipe: Recipe, origin: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every split of a run's tasks, such as `vqa/train`, from what was noted at its start, for `Run.log_dataset`."""
    found = []
    for key, told in origin.items():
        match = _RECORDS.match(told)
        _, _, place = key.partition("data.")
        task, _, role = place.rpartition(".")
        if match is None or task not in recipe.tasks:
            continue
        data = recipe.tasks[task].data
        source = {"data": data.name, "split": getattr(data, role), "root": data.root}
        source = {name: value for name, value in source.items() if value is not None}
        left_out = told[match.end() :].strip(", ")
        profile = {"records": int(match[1]), **({"told": left_out} if left_out else {})}
        named = {"name": f"{task}/{role}", "digest": match[2], "split": role}
        found.append({**named, "source": source, "profile": profile})
    return found


def system_metrics(processes: Processes, folder: Path) -> dict[str, float]:
    """How busy the machine, the disk of `folder` and this process's device are, by the names that MLflow draws."""
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


def peak_memory_mb() -> float:
    """Peak resident memory of this process, in MiB."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset / _MEBI
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10

"""An MLflow server that tests start, kill and start again, and a run in the middle of which that happens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Protocol

import yaml

from weft.eval.tracking import sync


class MlflowServer:
    """A server on loopback, in a process group of its own; the folder has artifacts, and the database by default."""

    def __init__(self, folder: Path, backend: str | None = None) -> None:
        self.port, self.folder = free_port(), folder
        self.backend = backend or f"sqlite:///{folder / 'server.db'}"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        words = ["server", "--workers", "1", "--host", "127.0.0.1", "--port", str(self.port)]
        words += ["--backend-store-uri", self.backend]
        self.folder.mkdir(parents=True, exist_ok=True)
        words += ["--artifacts-destination", str(self.folder / "artifacts")]
        self.process = subprocess.Popen(  # noqa: S603  (this Python, without a shell)
            [sys.executable, "-m", "mlflow", *words],
            env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for _ in range(1200):
            assert self.process.poll() is None, "the server ended"
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:  # noqa: S310  (its own address)
                    if answer.status == 200:
                        return
            except OSError:
                time.sleep(0.25)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        """Kill it with all its processes."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Restartable(Protocol):
    """A server that can be killed, and started again where it was."""

    def start(self) -> None:
        """Start it and wait until it answers."""

    def kill(self) -> None:
        """Kill it."""


def run_across_restart(
    values: dict[str, Any], folder: Path, server: Restartable, store: str | None = None
) -> str:
    """Run a recipe by command, and kill the server it is tracked on at its first checkpoint, up to that of step 20.

    What waited for the server is sent in the end.

    Args:
        values: The recipe, which is named `tiny` and saves every few steps.
        folder: Where the command runs; the recipe becomes its `recipe.yaml`.
        server: What it is tracked on.
        store: Address of the store, where that which spools keep is not enough.

    Returns:
        What the command wrote.
    """
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    command = [sys.executable, "-m", "weft.train", str(path)]
    run = subprocess.Popen(  # noqa: S603  (this Python, without a shell)
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    checkpoints = Path(values["output"]) / "tiny" / "checkpoints"
    while run.poll() is None and not list(checkpoints.glob("checkpoint-*")):
        time.sleep(0.05)
    server.kill()
    killed_at = run.poll()
    while run.poll() is None and not (checkpoints / "checkpoint-20").exists():
        time.sleep(0.05)
    server.start()
    said, _ = run.communicate()
    assert killed_at is None, "the server was killed too late to test anything"
    assert run.returncode == 0, said
    for spool in {events.parent for events in folder.rglob("events.jsonl")}:
        sync(spool, store)
    return said


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

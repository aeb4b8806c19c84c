"""An MLflow server that tests start, kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path


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


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])

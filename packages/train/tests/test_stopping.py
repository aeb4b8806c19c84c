"""SIGTERM ends a run with a checkpoint of the step it fell into, and the same command resumes from there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from weft.train.cli import main
from weft.train.engine.stopping import how_to_start
from weft.train.errors import RunError, StoppedError
from weft.train.recipe.loading import load_recipe
from weft.train.runs.run import execute
from weft.train.testing.curves import adapter_weights, assert_same_curve, assert_same_weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that can be heard")

STEPS = 20


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name.split("-")[1]) for path in (folder / "checkpoints").glob("checkpoint-*"))


def stop_during(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process SIGTERM while it computes this step, counted from 1."""
    from weft.train.engine.trainer import MultiTaskTrainer

    compute = MultiTaskTrainer.compute_loss

    def stopping(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step + 1 == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return compute(self, *args, **kwargs)

    monkeypatch.setattr(MultiTaskTrainer, "compute_loss", stopping)


def test_a_stopped_run_resumes_to_the_weights_of_an_undisturbed_one(
    values: dict[str, Any], finished: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finished(load_recipe(values, ["name=whole"]))
    recipe = load_recipe(values, ["name=stopped"])
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        stop_during(patch, 4)
        with pytest.raises(StoppedError, match=r"asked to stop \(SIGTERM\) and did so after step 4, with a"):
            execute(recipe, auto_resume=True)
    assert signal.getsignal(signal.SIGTERM) is before
    # Without `save_every` there would be none.
    assert checkpoints(recipe.folder) == [4]
    resumed = execute(recipe, auto_resume=True)
    assert resumed.scores == whole.scores
    expected, found = adapter_weights(whole.folder), adapter_weights(resumed.folder)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_exit_code_is_that_of_the_signal(
    values: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    stop_during(monkeypatch, 2)
    with pytest.raises(SystemExit) as ended:
        main(["train", str(path)])
    assert ended.value.code == 143
    assert "weft: The run was asked to stop" in capsys.readouterr().err


def test_auto_resume_starts_resumes_and_leaves_what_is_finished(
    values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(values)
    folder = recipe.folder
    assert how_to_start(folder) == (False, False)
    folder.mkdir(parents=True)
    assert how_to_start(folder) == (False, False), "a folder that no run made is not to be removed"
    (folder / ".weft-run").touch()
    assert how_to_start(folder) == (False, True)
    execute(recipe, auto_resume=True)
    with pytest.raises(RunError, match=r"`name` must be new"):
        execute(recipe, auto_resume=True)
    with pytest.raises(RunError, match=r"`--auto-resume` must come without --resume and --overwrite"):
        execute(recipe, auto_resume=True, overwrite=True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.skipif(not dist.is_gloo_available(), reason="needs gloo")
def test_a_signal_to_one_process_of_two_ends_both_at_one_step(values: dict[str, Any], tmp_path: Path) -> None:
    """With workers, which the signal to a launcher's process group reaches too."""
    values["training"] |= {"steps": STEPS, "log_every": 1, "save_every": 10, "workers": 1}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values, sort_keys=False))
    output = Path(values["output"])
    execute(load_recipe(values, ["name=one", "training.workers=0"]))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "weft.train", str(recipe), "name=two", "--auto-resume"]
    environment = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    launched = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    while launched.poll() is None and not (output / "two" / "checkpoints" / "checkpoint-10").exists():
        time.sleep(0.01)
    children = Path(f"/proc/{launched.pid}/task/{launched.pid}/children")
    rank = int(children.read_text().split()[1])
    assert os.getpgid(rank) == rank
    os.killpg(rank, signal.SIGTERM)
    _, errors = launched.communicate(timeout=300)
    assert launched.returncode != 0, "the run ended before it could be stopped"
    assert "asked to stop (SIGTERM)" in errors, errors[-4000:]
    assert 10 < checkpoints(output / "two")[-1] < STEPS
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_curve(output / "one", output / "two", STEPS)
    assert_same_weights(output / "one", output / "two")

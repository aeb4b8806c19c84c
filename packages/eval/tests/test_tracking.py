from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from weft.eval.errors import TrackingError
from weft.eval.tracking import check_store, open_run, runs_page, store_uri, sync, ui_command
from weft.eval.tracking.sender import Background, Sender, _batches
from weft.eval.tracking.spool import Event, Spool
from weft.eval.tracking.store import client, experiment_id

DEAD_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def in_an_empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def read(store: Path, run_id: str | None) -> Any:
    assert run_id is not None
    return client(store_uri(store)).get_run(run_id)


def test_a_run_keeps_everything_it_logged(store: Path, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "weights.txt").write_text("1", encoding="utf-8")
    with open_run(
        store, "e", "single", {"method": "single", "opt": {"lr": 1e-3}}, {"weft.control": False}
    ) as run:
        for step in range(3):
            run.log_metrics({"train/loss": 1 / (step + 1), "test/R@1": step}, step=step)
        run.log_metrics({"test/vqa": 71.2})
        run.log_dict({"sites": 3}, "plan.json")
        run.log_text("backbone: bart", "sub/recipe.yaml")
        run.log_artifacts(tmp_path / "adapter", "adapter")
        run.log_artifacts(tmp_path / "adapter" / "weights.txt")
        run.set_tags({"note": 1})
    found = read(store, run.run_id)
    assert found.data.params == {"method": "single", "opt.lr": "0.001"}
    assert found.data.metrics == {"train/loss": pytest.approx(1 / 3), "test/R_at_1": 2, "test/vqa": 71.2}
    assert (found.data.tags["weft.control"], found.data.tags["note"]) == ("False", "1")
    assert found.info.status == "FINISHED"
    artifacts = store / "artifacts" / found.info.run_id / "artifacts"
    names = {str(path.relative_to(artifacts)) for path in artifacts.rglob("*") if path.is_file()}
    assert names == {"plan.json", "sub/recipe.yaml", "adapter/weights.txt", "weights.txt"}
    assert json.loads((artifacts / "plan.json").read_text(encoding="utf-8")) == {"sites": 3}
    history = client(store_uri(store)).get_metric_history(run.run_id, "train/loss")
    assert [point.step for point in history] == [0, 1, 2]
    assert not run.spool.exists()


def test_a_child_names_its_parent(store: Path) -> None:
    with open_run(store, "e", "parent") as parent, open_run(store, "e", "child", parent=parent) as child:
        pass
    assert read(store, child.run_id).data.tags["mlflow.parentRunId"] == parent.run_id


def test_a_failing_body_marks_the_run_and_raises_its_own_error(store: Path) -> None:
    runs = []

    def body() -> None:
        with open_run(store, "e", "bad") as run:
            runs.append(run)
            run.log_metrics({"a": 1})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert read(store, runs[0].run_id).info.status == "FAILED"


def test_an_interrupt_marks_the_run_as_killed(store: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_run(store, "e", "stopped") as run:
        raise KeyboardInterrupt
    assert read(store, run.run_id).info.status == "KILLED"


def test_a_resumed_run_keeps_its_parameters_and_tags_the_changed_ones(store: Path) -> None:
    with open_run(store, "e", "first", {"lr": 1, "seed": 0}) as first:
        first.log_metrics({"loss": 2.0}, step=1)
    with open_run(store, "e", "first", {"lr": 2, "seed": 0, "new": 3}, run_id=first.run_id) as second:
        second.log_metrics({"loss": 1.0}, step=2)
    found = read(store, first.run_id)
    assert second.run_id == first.run_id
    assert found.data.params == {"lr": "1", "seed": "0", "new": "3"}
    assert found.data.tags["changed.lr"] == "2"
    assert len(client(store_uri(store)).get_metric_history(first.run_id, "loss")) == 2


@pytest.fixture
def lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Path:
    """The spool of a run whose server was dead all the time."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        caplog.at_level(logging.WARNING),
        open_run(DEAD_SERVER, "e", "lost", {"seed": 1}, interval=0.01) as run,
    ):
        run.log_metrics({"loss": 1.0}, step=5)
        run.log_text("x", "a.txt")
    assert run.run_id is None
    assert f"run `weft.eval.tracking.sync({str(run.spool)!r})` when it does" in caplog.text
    return run.spool


def test_a_dead_server_ends_no_run_and_sync_uploads_once(lost: Path, store: Path) -> None:
    with pytest.raises(TrackingError, match="The store must answer, but does not"):
        sync(lost)
    copy = lost.with_name("copy")
    shutil.copytree(lost, copy)
    first, second = sync(lost, store), sync(copy, store)
    assert first == second
    history = client(store_uri(store)).get_metric_history(first, "loss")
    assert [(point.step, point.value) for point in history] == [(5, 1.0)]
    assert read(store, first).info.status == "FINISHED"
    assert not lost.exists()


def test_a_refused_part_is_kept_and_the_rest_goes_on(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), open_run(store, "e", "long") as run:
        # Past the check of log_metrics, as a newer MLflow with other rules would see it.
        run._spool.append("metrics", step=0, values={"x" * 300: 1.0, "before": 1.0})
        run.log_metrics({"fine": 1.0})
    assert read(store, run.run_id).data.metrics == {"before": 1.0, "fine": 1.0}
    assert "refused a part of this run" in caplog.text
    assert (run.spool / "rejected.jsonl").exists()


def test_flush_sends_at_once(store: Path) -> None:
    with open_run(store, "e", "flushed", interval=60) as run:
        assert run.run_id is not None
        run.log_metrics({"a": 1})
        assert run.flush()
        assert read(store, run.run_id).data.metrics == {"a": 1}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss{x}": 1.0}, r"'loss\{x\}' also holds '\{', '\}'"),
        ({"x" * 251: 1.0}, "at most 250 characters, but 'xxx.* has 251"),
        ({"loss": "low"}, "A metric must be a number, but 'loss' is 'low'"),
    ],
)
def test_metrics_that_mlflow_would_refuse_are_refused_at_once(
    store: Path, metrics: dict[str, Any], message: str
) -> None:
    with open_run(store, "e", "r") as run, pytest.raises(TrackingError, match=message):
        run.log_metrics(metrics)


def test_artifacts_that_do_not_exist_are_refused(store: Path) -> None:
    with (
        open_run(store, "e", "r") as run,
        pytest.raises(TrackingError, match="`source` must exist, but 'nowhere'"),
    ):
        run.log_artifacts("nowhere")


def test_a_deleted_experiment_is_refused(store: Path) -> None:
    connected = client(store_uri(store))
    number = experiment_id(connected, store_uri(store), "gone")
    connected.delete_experiment(number)
    with pytest.raises(TrackingError, match="`experiment` must not be a deleted one, but 'gone' is"):
        experiment_id(connected, store_uri(store), "gone")


def test_sync_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrackingError, match=r"`spool` must be a folder with events\.jsonl"):
        sync(tmp_path)
    (tmp_path / "events.jsonl").touch()
    with pytest.raises(TrackingError, match="`spool` must hold a started run"):
        sync(tmp_path)


def test_a_store_that_cannot_be_opened_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    opened = open_run("nonsense://x", "e", "r")
    with pytest.raises(TrackingError, match="The tracking store nonsense://x must open, but does not"):
        opened.__enter__()
    assert not list(tmp_path.rglob("events.jsonl"))


def test_a_half_written_line_is_left_out(tmp_path: Path) -> None:
    spool = Spool.create(tmp_path, "a/b")
    spool.append("metrics", step=0, values={"a": 1})
    with (spool.folder / "events.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"sequence": 1, "kind": "met')
    assert [event["sequence"] for event in spool.events()] == [0]


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_events_that_find_no_room_leave_the_ones_before_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import resource

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    body = pytest.raises(OSError, match=os.strerror(errno.EFBIG))
    with body, open_run(f"sqlite:///{tmp_path / 'store.db'}", name="full", interval=600.0) as run:
        run.log_metrics({"loss": 2.0}, step=1)
        events = run.spool / "events.jsonl"
        size = events.stat().st_size
        try:
            # The system writes a part of the line, as it does on a disk that becomes full.
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, unlimited[1]))
            run.log_metrics({"loss": 1.0}, step=2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            assert events.stat().st_size == size
            shutil.copytree(run.spool, tmp_path / "kept")
    kept = Spool(tmp_path / "kept")
    assert [event.kind for event in kept.events()] == ["start", "metrics"]
    kept.append("end", status="FAILED")
    assert [event["sequence"] for event in kept.events()] == [0, 1, 2]


def test_a_run_whose_end_finds_no_room_raises_its_own_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = Spool.append

    def full(spool: Spool, kind: str, **content: Any) -> None:
        if kind == "end":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(spool, kind, **content)

    monkeypatch.setattr(Spool, "append", full)
    with pytest.raises(ZeroDivisionError), open_run(store, name="full"):
        raise ZeroDivisionError
    assert "The end of run full (FAILED) could not be written down: [Errno 28]" in caplog.text


def test_metrics_travel_in_batches_of_at_most_a_thousand() -> None:
    def events() -> Iterator[Event]:
        for _ in range(700):
            yield Event({"kind": "metrics", "values": {"a": 1, "b": 2, "c": 3}}, 0)
        yield Event({"kind": "tags", "tags": {}}, 0)
        yield Event({"kind": "end"}, 0)

    sizes = [sum(len(event.content.get("values", ())) for event in batch) for batch in _batches(events())]
    assert sizes == [999, 999, 102, 0, 0]


def test_the_background_sender_waits_longer_while_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    spool = Spool.create(tmp_path, "s")
    sender = Sender(spool)
    monkeypatch.setattr(sender, "drain", lambda: False)
    background = Background(sender, 0.001)
    assert not background.stop()


def test_stores_are_named_by_folder_uri_or_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert store_uri(tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert store_uri() == f"sqlite:///{tmp_path}/weft-runs/mlflow.db"
    assert store_uri(DEAD_SERVER) == DEAD_SERVER
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store_uri() == "http://tracking:5000"
    assert ui_command() == "open http://tracking:5000"
    assert (
        ui_command(tmp_path)
        == f"{sys.executable} -m mlflow ui --backend-store-uri sqlite:///{tmp_path}/mlflow.db"
    )


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("nonsense://x", "nonsense://x must open, but does not"),
        ("http://", "must be a folder or a URI such as http://host:5000, but is 'http://'"),
        ("{file}/store", "must be one that can be written, but .*/spool is not"),
        ("postgresql://weft:secret@nowhere/runs", r"postgresql://weft:\*\*\*@nowhere/runs must open"),
    ],
)
def test_a_store_that_can_never_take_a_run_is_refused_before_it(
    tmp_path: Path, place: str, message: str
) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(TrackingError, match=message) as refused:
        check_store(place.format(file=file), "weft")
    assert "secret" not in str(refused.value)


def test_a_server_that_does_not_answer_is_not_refused() -> None:
    check_store("http://127.0.0.1:9", "weft")


def test_the_page_of_an_experiment_is_that_of_its_runs(store: Path) -> None:
    with open_run(store, "mine", "r"):
        pass
    assert (
        runs_page(store, "mine") == "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    )

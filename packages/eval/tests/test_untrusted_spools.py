"""A spool of somebody else sends its own files to the store that the user means, and nothing else."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from weft.data.errors import InUseError
from weft.eval.errors import TrackingError
from weft.eval.tracking import open_run, store_uri, sync
from weft.eval.tracking.spool import Spool
from weft.eval.tracking.store import check_credentials, check_store, client, opened, ui_command

DEAD_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for name in ("URI", "TOKEN", "USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)


def spool_of(store: Path, **start: Any) -> Spool:
    """A spool as a run writes it, with one file."""
    spool = Spool.create(store / "spool", "theirs")
    content = {"uri": store_uri(store), "experiment": "e", "name": "theirs", "run_id": None, "params": {}}
    content |= {"tags": {"weft.spool": spool.folder.name}, "parent_spool": None, **start}
    spool.append("start", **content)
    spool.add_text("x", "a.txt")
    spool.append("end", status="FINISHED")
    return spool


def sent(store: Path) -> list[str]:
    return [path.name for path in (store / "artifacts").rglob("*") if path.is_file()]


def test_a_spool_in_its_store_is_sent(store: Path) -> None:
    sync(spool_of(store).folder)
    assert sent(store) == ["a.txt"]


def _climbs(spool: Spool, secret: Path) -> None:
    relative = os.path.relpath(secret.parent, spool.folder / "files")
    spool.append("artifact", files=relative, destination=None)


def _names_a_folder(spool: Spool, secret: Path) -> None:
    spool.append("artifact", files=str(secret.parent), destination=None)


def _links_a_file(spool: Spool, secret: Path) -> None:
    (spool.folder / "files" / "linked").mkdir()
    (spool.folder / "files" / "linked" / "b.txt").symlink_to(secret)
    spool.append("artifact", files="linked", destination=None)


def _links_a_folder(spool: Spool, secret: Path) -> None:
    (spool.folder / "files" / "linked").symlink_to(secret.parent)
    spool.append("artifact", files="linked", destination=None)


def _goes_up_in_the_store(spool: Spool, secret: Path) -> None:
    (spool.folder / "files" / "up").mkdir()
    spool.append("artifact", files="up", destination="../../elsewhere")


def _names_what_no_system_knows(spool: Spool, secret: Path) -> None:
    with (spool.folder / "events.jsonl").open("a") as events:
        words = {"sequence": 1, "kind": "artifact", "time": 0, "files": "\ud800", "destination": None}
        events.write(json.dumps(words) + "\n")


@pytest.mark.parametrize(
    "attack",
    [
        _names_what_no_system_knows,
        _climbs,
        _names_a_folder,
        _links_a_file,
        _links_a_folder,
        _goes_up_in_the_store,
    ],
)
def test_files_outside_of_a_spool_are_never_sent(
    store: Path, tmp_path: Path, attack: Callable[[Spool, Path], None]
) -> None:
    secret = tmp_path / "home" / ".ssh" / "id_rsa"
    secret.parent.mkdir(parents=True)
    secret.write_text("geheim")
    spool = spool_of(store)
    attack(spool, secret)
    with pytest.raises(TrackingError, match=r"Files of a spool must lie in it, but .* Do not send it"):
        sync(spool.folder)
    assert sent(store) == []


@pytest.mark.parametrize(
    "line",
    [
        "[]",
        "{}",
        "nonsense",
        "[" * 100_000,
        '{"kind": "evil", "time": 0}',
        '{"kind": "metrics", "time": 0, "step": 0, "values": {"a": "x"}}',
        '{"kind": "artifact", "time": 0, "files": 3, "destination": null}',
        '{"kind": "artifact", "time": 0, "files": "f"}',
        '{"kind": "tags", "time": 0}',
        '{"kind": ["end"], "time": 0, "status": "x"}',
        '{"kind": "start", "time": 0}',
    ],
)
def test_events_that_no_run_writes_are_refused_with_one_message(store: Path, line: str) -> None:
    spool = spool_of(store)
    with (spool.folder / "events.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        TrackingError, match=r"must be one that a run writes|must hold one JSON object a line"
    ):
        sync(spool.folder)


@pytest.mark.parametrize("text", ["[]", "{", '{"offset": "x", "run_id": null}'])
def test_a_damaged_note_of_what_was_sent_is_named(store: Path, text: str) -> None:
    spool = spool_of(store)
    (spool.folder / "sent.json").write_text(text)
    with pytest.raises(TrackingError, match=r"sent\.json must say what the store has"):
        sync(spool.folder)


def test_a_spool_is_sent_to_no_database_that_it_does_not_lie_beside(store: Path, tmp_path: Path) -> None:
    spool = spool_of(store, uri=store_uri(tmp_path / "mine"))
    with pytest.raises(TrackingError, match=r"must lie in the folder of its store, but .* Name the store"):
        sync(spool.folder)
    assert not (tmp_path / "mine").exists()
    sync(spool.folder, store)
    assert sent(store) == ["a.txt"]


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"])
def test_credentials_of_one_server_go_to_no_other(
    store: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "geheim")
    refusal = f"credentials in {name} must go to their own server alone, but the store is http://evil:5000"
    with pytest.raises(TrackingError, match=refusal):
        sync(spool_of(store, uri="http://evil:5000").folder)
    with pytest.raises(TrackingError, match=refusal):
        check_store("http://evil:5000", "weft")
    with pytest.raises(TrackingError, match=refusal):
        client("http://evil:5000")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ours:5000/")
    check_credentials("http://ours:5000")
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI is http://ours:5000/"):
        check_credentials("http://ours:5001")


def test_credentials_that_mlflow_keeps_in_a_file_go_to_no_other_server_either(tmp_path: Path) -> None:
    file = tmp_path / "home" / ".mlflow" / "credentials"
    file.parent.mkdir(parents=True)
    file.touch()
    with pytest.raises(TrackingError, match=r"credentials in ~/\.mlflow/credentials must go"):
        check_credentials("http://evil:5000")


def test_a_password_in_the_address_is_neither_kept_nor_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    uri = DEAD_SERVER.replace("//", "//bob:geheim@")
    with caplog.at_level(logging.DEBUG, logger="weft"), open_run(uri, "e", "lost", interval=0.01) as run:
        run.log_metrics({"loss": 1.0})
    assert "does not answer" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"geheim" in path.read_bytes()]
    assert "geheim" not in caplog.text + ui_command(uri) + ui_command("postgresql://w:geheim@h/runs")
    with pytest.raises(
        TrackingError, match=r"http://bob:\*\*\*@127.0.0.1:9, needs its credentials"
    ) as refused:
        sync(run.spool)
    with pytest.raises(TrackingError, match="The store must answer") as unanswered:
        sync(run.spool, uri)
    assert "geheim" not in str(refused.value) + str(unanswered.value)


def test_the_environment_gives_the_password_back(
    store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", DEAD_SERVER.replace("//", "//bob:geheim@"))
    spool = spool_of(store, uri=DEAD_SERVER.replace("//", "//bob:***@"))
    with pytest.raises(TrackingError, match="The store must answer, but does not"):
        sync(spool.folder)


def test_what_a_driver_says_is_printed_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(uri: str) -> Any:
        raise RuntimeError(f"cannot use {uri}, that is geheim\nand more")

    monkeypatch.setattr("weft.eval.tracking.store.client", fails)
    with pytest.raises(TrackingError, match="must open, but does not: cannot use") as refused:
        opened("mysql://bob:geheim@h/runs")
    assert "geheim" not in str(refused.value)
    assert refused.value.__cause__ is None


@pytest.mark.parametrize(
    ("module", "distribution"),
    [("psycopg", r"'psycopg\[binary\]'"), ("psycopg2", "psycopg2-binary"), ("MySQLdb", "mysqlclient")],
)
def test_the_hint_names_the_driver_that_is_missing(
    monkeypatch: pytest.MonkeyPatch, module: str, distribution: str
) -> None:
    def fails(uri: str) -> Any:
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("weft.eval.tracking.store.client", fails)
    with pytest.raises(TrackingError, match=f"Install it with: pip install {distribution}$"):
        opened("postgresql://h/runs")


def test_a_spool_is_sent_by_one_process_at_a_time(store: Path) -> None:
    with (
        open_run(store, "e", "still open") as run,
        pytest.raises(InUseError, match=r"The spool .* is in use by process"),
    ):
        sync(run.spool)


def test_a_spool_that_was_sent_leaves_nothing(store: Path) -> None:
    sync(spool_of(store).folder)
    assert list((store / "spool").iterdir()) == []


def test_a_spool_holds_json_lines(store: Path) -> None:
    events = (spool_of(store).folder / "events.jsonl").read_text().split("\n")[:-1]
    assert [json.loads(event)["kind"] for event in events] == ["start", "artifact", "end"]

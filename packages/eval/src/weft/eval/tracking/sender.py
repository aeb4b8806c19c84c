"""Sends a spool to an MLflow store, in batches, as often as it takes, without duplicates."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from weft.data.sources.credentials import CUT, without_secrets
from weft.data.sources.safe_paths import leads_to
from weft.eval.errors import TrackingError
from weft.eval.tracking.linked import send_dataset, send_model
from weft.eval.tracking.spool import SPOOL_TAG, Event, Spool
from weft.eval.tracking.store import check_credentials, client, database_of, experiment_id, said, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

_BATCH = 1000
_FIRST_PAUSE_SECONDS = 15.0
_LONGEST_PAUSE_SECONDS = 600.0
_PARAMETER_LENGTH = 6000
_PARENT_TAG = "mlflow.parentRunId"
# Answers that will be the same however often the request is repeated.
_FINAL = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS", "PERMISSION_DENIED"}

_logger = logging.getLogger(__name__)


def sync(spool: Path | str, store: Path | str | None = None) -> str:
    """Send what a run could not send while it ran.

    Repeating it is harmless: metrics keep their first time stamp, by which the store knows them again. Only files
    inside the spool are sent, and only one process at a time may send them.

    Args:
        spool: The spool folder that the run named when its upload failed.
        store: Where to send it, as for `store_uri`; by default the server that the spool names, or the folder that the
            spool is in. Needed where that address held a password, which a spool does not keep.

    Returns:
        The id of the run in the store.

    Raises:
        TrackingError: The folder is no spool, names files or a store outside of its own folder, or the store still
            cannot be reached.
        InUseError: The run itself, or another process, is sending it.
    """
    opened = Spool(Path(spool))
    if next(opened.events(), None) is None:
        raise TrackingError(
            f"`spool` must hold a started run, but {str(spool)!r} is empty. Delete it; nothing was logged."
        )
    with opened.alone():
        opened.check()
        sender = Sender(opened, _destination(opened, store))
        if not sender.drain():
            raise TrackingError(
                f"The store must answer, but does not: {sender.problem}. Start it and sync again."
            )
        _, run_id = opened.sent()
        assert run_id is not None, "a drained spool has a run"
        if sender.finished and not sender.rejected:
            opened.remove()
    return run_id


def _destination(spool: Spool, store: Path | str | None) -> str:
    """The tracking URI that a spool is sent to: as given, else as the spool says, if that is safe to follow."""
    if store is not None:
        return store_uri(store)
    named, own = str(next(spool.events())["uri"]), os.environ.get("MLFLOW_TRACKING_URI", "")
    if own and without_secrets(own) == named:
        return own
    if CUT in named:
        raise TrackingError(
            f"The store of the spool, {named}, needs its credentials, which are kept nowhere. Give the whole address "
            "as `store` (--store), or in MLFLOW_TRACKING_URI."
        )
    if not named.startswith(("http://", "https://")):
        beside = store_uri(spool.folder.resolve().parent.parent)
        if database_of(named) is None or leads_to(named.removeprefix("sqlite:///")) != database_of(beside):
            raise TrackingError(
                f"A spool must lie in the folder of its store, but {spool.folder} does not lie in that of {named}. "
                "Name the store as `store` (--store) if it is right."
            )
    check_credentials(named)
    return named


class Sender:
    """Delivers the events of one spool in order.

    Args:
        spool: The spool.
        uri: Tracking URI of the store, with its credentials; by default the one that the spool keeps, without.
    """

    def __init__(self, spool: Spool, uri: str | None = None) -> None:
        self.spool = spool
        self.problem: str | None = None
        self.rejected: list[str] = []
        self.finished = False
        self._lock = threading.Lock()
        self._client: MlflowClient | None = None
        self._uri = uri or ""

    def drain(self) -> bool:
        """Send everything the spool holds now, and tell whether all of it arrived; `problem` says why not."""
        with self._lock:
            offset, run_id = self.spool.sent()
            try:
                self.connect()
                for batch in _batches(self.spool.events(offset)):
                    run_id = self._deliver(batch, run_id)
                    self.spool.acknowledge(batch[-1].end, run_id)
            except Exception as error:
                # Whatever goes wrong on the way to the store must not end a training run: it is reported,
                # kept in `problem`, and tried again.
                text = said(error, self._uri)
                if self.problem is None:
                    _logger.warning(
                        "The tracking store %s does not answer; trying again later.",
                        without_secrets(self._uri),
                    )
                _logger.debug("Sending failed: %s", text)
                self.problem = f"{type(error).__name__}: {text}"
                return False
            self.problem = None
            return True

    def _deliver(self, batch: list[Event], run_id: str | None) -> str:
        first = batch[0]
        if first.kind == "start":
            return self._start(first)
        assert run_id is not None, "the first event starts the run"
        mlflow_client = self.connect()
        if first.kind == "metrics":
            self._send_metrics(run_id, _metrics(batch))
        elif first.kind == "tags":
            self._attempt(lambda: mlflow_client.log_batch(run_id, tags=_tags(first["tags"])))
        elif first.kind == "artifact":
            files = str(self.spool.files(first))
            self._attempt(lambda: mlflow_client.log_artifacts(run_id, files, first["destination"]))
        elif first.kind == "dataset":
            self._attempt(lambda: send_dataset(mlflow_client, run_id, first.content))
        elif first.kind == "model":
            self._attempt(lambda: send_model(mlflow_client, run_id, first.content, self.spool.files(first)))
        else:
            mlflow_client.set_terminated(run_id, status=first["status"], end_time=first["time"])
            self.finished = True
        return run_id

    def connect(self) -> MlflowClient:
        """The client; building it imports MLflow and creates an embedded database, but asks no server."""
        if self._client is None:
            self._uri = self._uri or next(self.spool.events())["uri"]
            self._client = client(self._uri)
        return self._client

    def _start(self, event: Event) -> str:
        mlflow_client = self.connect()
        experiment = experiment_id(mlflow_client, self._uri, event["experiment"])
        run_id = event["run_id"] or _run_with_tag(mlflow_client, experiment, event["tags"][SPOOL_TAG])
        tags = dict(event["tags"])
        if event["parent_spool"] is not None:
            parent = _run_with_tag(mlflow_client, experiment, event["parent_spool"])
            if parent is not None:
                tags[_PARENT_TAG] = parent
        if run_id is None:
            created = mlflow_client.create_run(
                experiment, start_time=event["time"], run_name=event["name"], tags=tags
            )
            run_id = created.info.run_id
            known: dict[str, str] = {}
        else:
            mlflow_client.log_batch(run_id, tags=_tags(tags))
            mlflow_client.update_run(run_id, status="RUNNING")
            known = mlflow_client.get_run(run_id).data.params
        self._parameters(run_id, event["params"], known)
        return str(run_id)

    def _parameters(self, run_id: str, given: dict[str, str], known: dict[str, str]) -> None:
        """Log new parameters; MLflow refuses changed ones, so those become tags."""
        from mlflow.entities import Param

        mlflow_client = self.connect()
        values = {key: value[:_PARAMETER_LENGTH] for key, value in given.items()}
        fresh = [Param(key, value) for key, value in values.items() if key not in known]
        for start in range(0, len(fresh), 100):
            part = fresh[start : start + 100]
            self._attempt(partial(mlflow_client.log_batch, run_id, params=part))
        changed = {f"changed.{key}": value for key, value in values.items() if known.get(key, value) != value}
        if changed:
            mlflow_client.log_batch(run_id, tags=_tags(changed))

    def _send_metrics(self, run_id: str, metrics: list[Any]) -> None:
        """Send metrics; when the store refuses them, halve until only the refused ones are left out."""
        from mlflow.exceptions import MlflowException

        send = partial(self.connect().log_batch, run_id, metrics=metrics)
        if len(metrics) == 1:
            self._attempt(send)
            return
        try:
            send()
        except MlflowException as error:
            if error.error_code not in _FINAL:
                raise
            half = len(metrics) // 2
            self._send_metrics(run_id, metrics[:half])
            self._send_metrics(run_id, metrics[half:])

    def _attempt(self, send: Callable[[], Any]) -> None:
        """Send once; an answer that will never change is kept in `rejected` so that the rest is sent."""
        from mlflow.exceptions import MlflowException

        try:
            send()
        except MlflowException as error:
            if error.error_code not in _FINAL:
                raise
            text = said(error, self._uri)
            self.rejected.append(text)
            with (self.spool.folder / "rejected.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(text) + "\n")
            _logger.error("The tracking store refused a part of this run: %s", text)


class Background:
    """Drains a sender from its own thread, with growing pauses while nobody answers.

    Args:
        sender: The sender.
        interval: Seconds between two deliveries.
    """

    def __init__(self, sender: Sender, interval: float) -> None:
        self.sender = sender
        self._interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="weft-tracking", daemon=True)
        self._thread.start()

    def stop(self) -> bool:
        """Stop the thread, try once more, and tell whether everything arrived."""
        self._stop.set()
        self._thread.join()
        return self.sender.drain()

    def _work(self) -> None:
        pause = 0.0
        while not self._stop.wait(pause or self._interval):
            longer = min(max(2 * pause, _FIRST_PAUSE_SECONDS), _LONGEST_PAUSE_SECONDS)
            pause = 0.0 if self.sender.drain() else longer


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    """Group neighbouring metric events into batches of at most 1000 values."""
    batch: list[Event] = []
    size = 0
    for event in events:
        values = len(event["values"]) if event.kind == "metrics" else _BATCH
        if batch and (batch[0].kind != event.kind or size + values > _BATCH):
            yield batch
            batch, size = [], 0
        batch.append(event)
        size += values
    if batch:
        yield batch


def _metrics(batch: list[Event]) -> list[Any]:
    from mlflow.entities import Metric

    return [
        Metric(key, value, event["time"], event["step"])
        for event in batch
        for key, value in event["values"].items()
    ]


def _tags(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]


def _run_with_tag(mlflow_client: MlflowClient, experiment: str, spool_name: str) -> str | None:
    found = mlflow_client.search_runs([experiment], f"tags.`{SPOOL_TAG}` = '{spool_name}'", max_results=1)
    return str(found[0].info.run_id) if found else None

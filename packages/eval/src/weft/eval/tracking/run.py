"""One tracked run."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from weft.data.sources.credentials import without_secrets
from weft.eval.errors import TrackingError, shown
from weft.eval.tracking.linked import LONGEST_DIGEST
from weft.eval.tracking.sender import Background, Sender
from weft.eval.tracking.spool import SPOOL_TAG, Spool
from weft.eval.tracking.store import opened, spool_folder, store_uri

_logger = logging.getLogger(__name__)
_NAME = re.compile(r"[\w\-. :/]+")
_LONGEST_NAME = 250
_METRICS_PER_EVENT = 1000


class Run:
    """What `open_run` yields: the verbs of logging.

    Attributes:
        name: Name of the run.
        uri: Tracking URI of its store.
        spool: Folder of the local record.
    """

    def __init__(self, name: str, uri: str, spool: Spool, sender: Sender) -> None:
        self.name = name
        self.uri = uri
        self._spool = spool
        self._sender = sender
        self._run_id: str | None = None

    @property
    def spool(self) -> Path:
        """Folder of the local record; it disappears once everything has arrived in the store."""
        return self._spool.folder

    @property
    def run_id(self) -> str | None:
        """Id of the run in the store, or `None` while the store has not answered."""
        if self._run_id is None and self._spool.folder.exists():
            self._run_id = self._spool.sent()[1]
        return self._run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers.

        Args:
            metrics: Name to value. `@` in a name is written as `_at_`, because MLflow refuses it.
            step: Training step; 0 for numbers of the whole run.

        Raises:
            TrackingError: A name is too long or holds a character MLflow refuses, or a value is not a number.
        """
        items = list(_numbers(metrics).items())
        for start in range(0, len(items), _METRICS_PER_EVENT):
            part = dict(items[start : start + _METRICS_PER_EVENT])
            self._spool.append("metrics", step=step or 0, values=part)

    def log_dict(self, data: Any, path: str) -> None:
        """Log JSON-able data as the artifact `path`, such as `"plan.json"`."""
        self._spool.add_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", path)

    def log_text(self, text: str, path: str) -> None:
        """Log a text as the artifact `path`, such as `"recipe.yaml"`."""
        self._spool.add_text(text, path)

    def log_artifacts(self, source: Path | str, destination: str | None = None) -> None:
        """Log a file or everything in a folder, as it is now.

        Args:
            source: A file or a folder.
            destination: Folder inside the run's artifacts, or `None` for their root.

        Raises:
            TrackingError: There is no such file or folder.
        """
        self._spool.add_files("artifact", Path(source), destination=destination)

    def log_dataset(
        self, name: str, digest: str, split: str, *, source: Mapping[str, Any], profile: Mapping[str, Any]
    ) -> None:
        """Link a data set that the run reads.

        Args:
            name: Its name.
            digest: A fingerprint of its records; its first characters are kept, as many as MLflow takes.
            split: What it is used for, such as `train`.
            source: Where it is, as JSON-able data; credentials are taken out.
            profile: What is in it, such as the number of records.
        """
        about = {"name": name, "digest": digest[:LONGEST_DIGEST], "split": split}
        self._spool.append("dataset", **about, source=dict(source), profile=dict(profile))

    def log_model(
        self,
        folder: Path | str,
        *,
        name: str = "model",
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        datasets: Mapping[str, tuple[str, str]] | None = None,
        register: str | None = None,
    ) -> None:
        """Keep a folder as the model that the run made, a `LoggedModel` of MLflow, linked to the run.

        Args:
            folder: Its files, as they are now.
            name: Name of the model.
            params: Parameters of the model; values become text.
            metrics: Numbers of the model, which the run gets too, at step 0.
            datasets: Name of a metric, or what its name begins with before a slash, to name and digest of the data set
                that it was computed on.
            register: Name of the registered model that it becomes a version of, or None.

        Raises:
            TrackingError: There is no such folder, or a metric is as in `log_metrics`.
        """
        known = {
            key: {"name": data, "digest": digest[:LONGEST_DIGEST]}
            for key, (data, digest) in (datasets or {}).items()
        }
        self._spool.add_files(
            "model",
            Path(folder),
            name=name,
            params=_texts(params or {}),
            values=_numbers(metrics or {}),
            datasets=known,
            register=register,
        )

    def set_tags(self, tags: Mapping[str, Any]) -> None:
        """Set tags; values become text."""
        self._spool.append("tags", tags={key: str(value) for key, value in tags.items()})

    def flush(self) -> bool:
        """Put everything on the local disk, try to send it now, and tell whether the store holds all of it."""
        self._spool.flush()
        return self._sender.drain()


@contextmanager
def open_run(
    store: Path | str | None = None,
    experiment: str = "weft",
    name: str = "run",
    params: Mapping[str, Any] | None = None,
    tags: Mapping[str, Any] | None = None,
    parent: Run | str | None = None,
    *,
    run_id: str | None = None,
    interval: float = 2.0,
) -> Iterator[Run]:
    """Open a run, log into it inside the `with` block, and close it.

    The run ends as `FINISHED`, as `FAILED` when the body raises, as `KILLED` on a keyboard interrupt. A store
    that does not answer within seconds when the run opens is reported in the log and tried again in the
    background; at the end a warning names the spool for `sync`.

    Args:
        store: A folder, a tracking URI, or `None` (see `store_uri`).
        experiment: Name of the experiment; made if needed.
        name: Name of the run.
        params: Parameters, logged once; values become text, mappings are joined with dots.
        tags: Tags; values become text.
        parent: The run this one is part of, or its id.
        run_id: Id of an existing run to resume. Parameters that changed since are kept as tags
            `changed.<name>`.
        interval: Seconds between deliveries.

    Yields:
        The run.

    Raises:
        TrackingError: The store cannot be opened at all (a server that does not answer is no such case).
    """
    uri = store_uri(store)
    spool = Spool.create(spool_folder(store), name)
    all_tags = {key: str(value) for key, value in (tags or {}).items()} | {SPOOL_TAG: spool.folder.name}
    all_tags |= _parent_tag(parent)
    spool.append(
        "start",
        uri=without_secrets(uri),
        experiment=experiment,
        name=name,
        run_id=run_id,
        params=_texts(params or {}),
        tags=all_tags,
        parent_spool=parent.spool.name if isinstance(parent, Run) else None,
    )
    sender = Sender(spool, uri)
    try:
        opened(uri)
    except TrackingError:
        spool.remove()
        raise
    # One attempt before the work begins: the run's id is then known, and a dead server is reported at once.
    sender.drain()
    run = Run(name, uri, spool, sender)
    with spool.alone():
        yield from _open(run, spool, sender, interval)


def _parent_tag(parent: Run | str | None) -> dict[str, str]:
    if isinstance(parent, Run):
        # It must be in the store before a child can name it there; if it cannot, the spool tells later.
        parent.flush()
    parent_id = parent.run_id if isinstance(parent, Run) else parent
    return {} if parent_id is None else {"mlflow.parentRunId": parent_id}


def _open(run: Run, spool: Spool, sender: Sender, interval: float) -> Iterator[Run]:
    """Yield an open run, and close it."""
    name, uri = run.name, run.uri
    background = Background(sender, interval)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        try:
            spool.append("end", status=status)
        except OSError as error:
            # A disk that is full; what the body raised says so too, and must not be hidden by this.
            _logger.warning("The end of run %s (%s) could not be written down: %s", name, status, error)
        complete = background.stop()
        assert run.run_id is not None or not complete, "a drained spool has a run"
        if complete and not sender.rejected:
            spool.remove()
        elif not complete:
            _logger.warning(
                "The tracking store %s does not answer (%s). Nothing is lost: "
                "run `weft.eval.tracking.sync(%r)` when it does.",
                without_secrets(uri),
                sender.problem,
                str(spool.folder),
            )


def _texts(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Parameters as text; those of mappings are joined to their names with dots."""
    found: dict[str, str] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            found |= _texts(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = str(value)
    return found


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {_metric_name(name): _number(name, value) for name, value in metrics.items()}


def _metric_name(name: str) -> str:
    written = name.replace("@", "_at_")
    if len(written) > _LONGEST_NAME:
        raise TrackingError(
            f"A metric name may hold at most {_LONGEST_NAME} characters, but {name!r} has {len(written)}. "
            "Shorten it."
        )
    if not _NAME.fullmatch(written):
        raise TrackingError(
            "A metric name may hold letters, digits, spaces and -_.:/ only, but "
            f"{name!r} also holds {shown(sorted(set(_NAME.sub('', written))))}. Rename it."
        )
    return written


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise TrackingError(
            f"A metric must be a number, but {name!r} is {value!r}. Log text as a tag or an artifact."
        ) from error

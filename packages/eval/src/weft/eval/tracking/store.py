"""Where runs are kept, and the MLflow client that reaches them."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import tempfile
import warnings
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from weft.data.processes.locks import held
from weft.data.sources.credentials import CUT, password_of, without_secrets
from weft.eval.errors import TrackingError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_FOLDER = "weft-runs"
_DATABASE = "mlflow.db"
_ARTIFACTS = "artifacts"
_CREDENTIALS = ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
_CREDENTIALS_FILE = Path("~/.mlflow/credentials")
_LONGEST_FIRST_USE = 300.0
_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
# By it the UI's list of experiments leads to runs, and not to traces, of which there are none.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_SERVER_LOCKS = {
    "postgresql": "SELECT pg_advisory_lock(hashtext('weft'))",
    "mysql": f"SELECT GET_LOCK('weft', {_LONGEST_FIRST_USE:.0f})",
}
# MLflow's own defaults retry for minutes; a training run must know within seconds that nobody answers.
_IMPATIENCE = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "5", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}


def store_uri(store: Path | str | None = None) -> str:
    """The MLflow tracking URI of a store.

    Args:
        store: A folder (an embedded SQLite database and artifacts are in it), a tracking URI such as
            `http://host:5000` or `sqlite:////data/mlflow.db`, or `None` for the environment variable
            `MLFLOW_TRACKING_URI` and, if that is unset, the folder `weft-runs` here.

    Returns:
        A tracking URI with an absolute path.

    Example:
        >>> store_uri("http://localhost:5000")
        'http://localhost:5000'
    """
    folder = store_folder(store)
    if folder is None:
        return str(store) if store is not None else os.environ["MLFLOW_TRACKING_URI"]
    return f"sqlite:///{(folder / _DATABASE).as_posix()}"


def store_folder(store: Path | str | None = None) -> Path | None:
    """The absolute folder of an embedded store, or `None` when the store is reached by URI."""
    if store is None:
        if os.environ.get("MLFLOW_TRACKING_URI"):
            return None
        store = DEFAULT_FOLDER
    if isinstance(store, str) and "://" in store:
        return None
    return Path(store).absolute()


def spool_folder(store: Path | str | None = None) -> Path:
    """The absolute folder that keeps the local records of runs until a store has them."""
    return (store_folder(store) or Path(DEFAULT_FOLDER).absolute()) / "spool"


def said(error: BaseException, uri: str) -> str:
    """The first line of what an error on the way to a store says, without the credentials of its URI."""
    line = next(iter(str(error).strip().split("\n")), "")
    password = password_of(uri)
    return without_secrets(line.replace(password, CUT) if password else line)


def check_store(store: Path | str | None, experiment: str) -> None:
    """Refuse a store that can never take a run; a server that merely does not answer is no such case.

    A database is opened, and made if it is new; a server is not asked.

    Args:
        store: As for `store_uri`.
        experiment: Name of the experiment; made in a database if needed.

    Raises:
        TrackingError: The local records cannot be written, the URI is none, or the database does not open.
    """
    uri, folder = store_uri(store), spool_folder(store)
    served = uri.startswith(("http://", "https://"))
    if served and not urlsplit(uri).hostname:
        raise TrackingError(
            f"The tracking store must be a folder or a URI such as http://host:5000, but is {without_secrets(uri)!r}."
        )
    check_credentials(uri)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise TrackingError(
            f"The folder of the store must be one that can be written, but {folder} is not: {error}. Name "
            "another store."
        ) from None
    if not served:
        experiment_id(opened(uri), uri, experiment)


def opened(uri: str) -> MlflowClient:
    """The client of a store, or an error that says why there is none.

    Raises:
        TrackingError: The store does not open.
    """
    try:
        return client(uri)
    except ImportError as error:
        raise TrackingError(
            f"The tracking store {without_secrets(uri)} must open, but its driver is not installed: {error}. Install "
            f"it with: pip install {_driver(error.name)}"
        ) from error
    except TrackingError:
        raise
    except Exception as error:
        # What was raised may hold the password, so that it is not kept as the cause.
        raise _unopened(uri, error) from None


def _unopened(uri: str, error: Exception) -> TrackingError:
    return TrackingError(
        f"The tracking store {without_secrets(uri)} must open, but does not: {said(error, uri)} "
        "Start its server, name another store, or upgrade this one with `mlflow db upgrade`."
    )


def check_credentials(uri: str) -> None:
    """Refuse to hand the credentials of one MLflow server to another.

    MLflow sends what its environment variables hold to whatever server a recipe or a spool names.

    Raises:
        TrackingError: There are credentials, and they do not belong to this server.
    """
    if not uri.startswith(("http://", "https://")):
        return
    given = [name for name in _CREDENTIALS if os.environ.get(name)]
    if _CREDENTIALS_FILE.expanduser().is_file():
        given.append(str(_CREDENTIALS_FILE))
    own = os.environ.get("MLFLOW_TRACKING_URI", "")
    if given and _server(uri) != _server(own):
        raise TrackingError(
            f"The credentials in {given[0]} must go to their own server alone, but the store is {without_secrets(uri)} "
            f"and MLFLOW_TRACKING_URI is {without_secrets(own) or 'not set'}. Set MLFLOW_TRACKING_URI to the server "
            "that they belong to, or unset them."
        )


def _server(uri: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(uri)
        return parts.scheme, parts.hostname, parts.port
    except ValueError:
        return uri, None, None


def _driver(module: str | None) -> str:
    """What pip calls the driver whose module is absent."""
    return {
        "psycopg": "'psycopg[binary]'",
        "psycopg2": "psycopg2-binary",
        "MySQLdb": "mysqlclient",
        "pymysql": "PyMySQL",
    }.get(module or "", module or "the driver that the message names")


def database_of(uri: str) -> Path | None:
    """The file of an embedded store, or None where the store is reached otherwise."""
    path = uri.removeprefix("sqlite:///").partition("?")[0]
    return Path(path) if uri.startswith("sqlite:///") and path not in ("", ":memory:") else None


def _one_at_a_time(uri: str) -> AbstractContextManager[Any]:
    """Let one process at a time make a database, or what it lacks: MLflow's migrations do not bear two."""
    database = database_of(uri)
    if database is None:
        return _lock_of_server(uri)
    database.parent.mkdir(parents=True, exist_ok=True)
    if database.is_file() and not os.access(database.parent, os.W_OK):
        return nullcontext()  # it can only be read
    lock = database.with_name(f".{database.name}.lock")
    return held(lock, f"The tracking store {database}", wait=_LONGEST_FIRST_USE)


def _lock_of_server(uri: str) -> AbstractContextManager[Any]:
    """Hold a lock of the database server itself, as its users may run on many machines; it ends with its connection."""
    statement = _SERVER_LOCKS.get(uri.partition("://")[0].partition("+")[0])
    if statement is None:
        return nullcontext()
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    try:
        connection = engine.connect()
        connection.execute(sqlalchemy.text(statement))
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise _unopened(uri, error) from None
    return connection


def ui_command(store: Path | str | None = None) -> str:
    """The command line that opens the MLflow UI on a store, or the address of a server that already runs."""
    uri = store_uri(store)
    if uri.startswith(("http://", "https://")):
        return f"open {without_secrets(uri)}"
    return shlex.join([sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", without_secrets(uri)])


def runs_page(store: Path | str | None, experiment: str) -> str:
    """The page of an experiment's runs in the UI that `ui_command` opens, or on the server.

    MLflow's own page of an experiment is about traces, of which there are none here.
    """
    uri = store_uri(store)
    number = experiment_id(client(uri), uri, experiment)
    front = without_secrets(uri) if uri.startswith(("http://", "https://")) else _UI
    return f"{front.rstrip('/')}/#/experiments/{number}/runs?workflowType=machine_learning"


def client(uri: str) -> MlflowClient:
    """An MLflow client for what `store_uri` returned, with telemetry off and short timeouts.

    Raises:
        TrackingError: The environment holds credentials of another server.
    """
    check_credentials(uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name, value in _IMPATIENCE.items():
        os.environ.setdefault(name, value)
    with warnings.catch_warnings():
        # MLflow's database layer uses what newer releases of SQLAlchemy call deprecated; nobody here can act on it.
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient

        # A new database announces each of its migrations.
        for name in ("mlflow.store.db.utils", "mlflow.tracking.fluent", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with _one_at_a_time(uri):
            return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(mlflow_client: MlflowClient, uri: str, name: str) -> str:
    """The id of an experiment, which is created if needed, with artifacts beside an embedded database.

    Raises:
        TrackingError: The experiment of that name is deleted.
    """
    from mlflow.exceptions import MlflowException

    found = mlflow_client.get_experiment_by_name(name)
    if found is None:
        database = database_of(uri)
        location = None if database is None else (database.parent / _ARTIFACTS).as_uri()
        try:
            with _one_at_a_time(uri):
                return str(mlflow_client.create_experiment(name, artifact_location=location, tags=_KIND))
        except MlflowException as error:
            # Another process may have created it in between.
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = mlflow_client.get_experiment_by_name(name)
            assert found is not None, "an experiment that exists can be found"
    if found.lifecycle_stage == "deleted":
        raise TrackingError(
            f"`experiment` must not be a deleted one, but {name!r} is. Choose another name, or restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`."
        )
    return str(found.experiment_id)

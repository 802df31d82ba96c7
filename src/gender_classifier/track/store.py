"""The MLflow store: which one it is, how it is opened, and its experiments."""

import hashlib
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from urllib.parse import quote, unquote

import mlflow
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import is_local_uri
from requests import RequestException
from sqlalchemy import URL, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from gender_classifier.common.credentials import hide_secrets
from gender_classifier.common.locks import hold_lock
from gender_classifier.common.logs import quiet_loggers
from gender_classifier.common.paths import find_checkout, find_main_root
from gender_classifier.common.processes import finish_first
from gender_classifier.common.terminal import printable
from gender_classifier.errors import TrackingError
from gender_classifier.track.relocation import ARTIFACTS_TAG, find_artifacts_dir, follow_move
from gender_classifier.track.store_address import check_address, check_port, is_server, parse_database, show_address

_logger = logging.getLogger(__name__)

EXPERIMENT = "gender-classifier"
"""Default experiment of the model runs (``MLFLOW_EXPERIMENT_NAME`` wins); the data runs' adds ``-data``."""

# The UI opens such an experiment on its training runs instead of on its pages for language models.
_EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}

# Seconds to wait for an answer when the store is opened, and for an upload. MLflow's own limits (7 retries of
# 2 minutes) are for people who wait.
OPEN_TIMEOUT, UPLOAD_TIMEOUT = 10, 120

_one_thread = threading.RLock()


def locate_store_root(folder: Path) -> Path:
    """Return the main checkout of the project that ``folder`` lies in, for :func:`connect`.

    Outside any project it is ``folder`` itself, and the store must be named by the environment.

    Raises:
        TrackingError: outside any project, and ``MLFLOW_TRACKING_URI`` is not set.
    """
    root = find_checkout(folder)
    if root is None and not os.environ.get("MLFLOW_TRACKING_URI"):
        raise TrackingError(
            f"{folder}: no project here (no dvc.yaml in this folder or above it); run from the project's folder, or "
            "set MLFLOW_TRACKING_URI"
        )
    return folder if root is None else find_main_root(root)


def find_tracking_uri(root: Path) -> str:
    """Return ``MLFLOW_TRACKING_URI``, or SQLite at the root of the main checkout.

    A relative path in the variable is relative to the main checkout, wherever the process runs.

    Raises:
        TrackingError: it is badly formed, or names a database in memory, which would end with the process.
    """
    main_root = find_main_root(root)
    given = os.environ.get("MLFLOW_TRACKING_URI")
    return _anchor("MLFLOW_TRACKING_URI", given, main_root) if given else _build_sqlite_uri(main_root / "mlflow.db")


def connect(root: Path, *, create: bool = True) -> MlflowClient:
    """Return a client of the store, whose tables exist.

    Raises:
        TrackingError: it does not answer; or without ``create``, there is no such SQLite file.
        LockError: the folder of an SQLite file that is to be made cannot be locked.
    """
    uri = find_tracking_uri(root)
    _logger.debug("MLflow store: %s", hide_secrets(uri))
    registry = os.environ.get("MLFLOW_REGISTRY_URI")
    file = _find_sqlite_file(uri)
    if not create and file is not None and not file.is_file():
        raise TrackingError(f"{file}: no such store; run `dvc repro` to make it, or set MLFLOW_TRACKING_URI")
    registry_uri = _anchor("MLFLOW_REGISTRY_URI", registry, find_main_root(root)) if registry else None
    with quiet_mlflow(), one_line_errors(), _creating_alone(uri, file), patience(uri, OPEN_TIMEOUT):
        # Making the client creates the tables; of two processes that create one store at once, one fails.
        client = _open_client(uri, registry_uri)
        if file is not None:
            follow_move(uri, file, find_main_root(root))
    return client


def find_experiments(client: MlflowClient) -> dict[str, str]:
    """Return ids by name of the experiments of this project that exist: for models and for data."""
    names = (name_experiment(client, data=False), name_experiment(client, data=True))
    found = {name: client.get_experiment_by_name(name) for name in names}
    return {name: str(experiment.experiment_id) for name, experiment in found.items() if experiment is not None}


def name_experiment(client: MlflowClient, *, data: bool) -> str:
    """Return the name of the experiment for models, or of that for data.

    ``MLFLOW_EXPERIMENT_NAME`` and ``MLFLOW_EXPERIMENT_ID`` name the one for models.

    Raises:
        TrackingError: there is no experiment of that id, or the two variables name different ones.
    """
    name, experiment_id = (os.environ.get(f"MLFLOW_EXPERIMENT_{end}") or "" for end in ("NAME", "ID"))
    if experiment_id:
        name = _name_by_id(client, experiment_id, name)
    name = name or EXPERIMENT
    return f"{name}-data" if data else name


def make_experiment(client: MlflowClient, name: str, root: Path) -> str:
    """Return the id of the experiment ``name``, which is created if there is none.

    Raises:
        TrackingError: it was deleted.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        tags, location = dict(_EXPERIMENT_TAGS), None
        if not is_server(client.tracking_uri):
            # A server decides itself where artifacts go; anything else would take the folder it is created in.
            folder = find_artifacts_dir(_find_sqlite_file(client.tracking_uri), find_main_root(root))
            tags[ARTIFACTS_TAG] = folder.as_uri()
            location = (folder / _name_folder(name)).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location, tags=tags))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another process may have been quicker
            if found is None:
                raise error
    if found.lifecycle_stage != "active":
        raise TrackingError(
            f"MLflow experiment {name!r} is deleted; restore it in the UI, or set MLFLOW_EXPERIMENT_NAME to another"
        )
    return str(found.experiment_id)


def name_store(uri: str, root: Path) -> str:
    """Return ``uri`` as it is known to a checkout that may be moved: an SQLite file in it without the path to it."""
    file, main_root = _find_sqlite_file(uri), find_main_root(root)
    return f"sqlite:{file.relative_to(main_root)}" if file is not None and file.is_relative_to(main_root) else uri


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn errors of MLflow, and of the database it lets through, into a :class:`TrackingError`.

    MLflow would also log the traceback of a database's error, which the exception carries.
    """
    with quiet_loggers("mlflow.store.db.utils", level=logging.CRITICAL):
        try:
            yield
        except ModuleNotFoundError as error:  # such as a database's driver
            message = (
                f"MLflow needs a package that is not here ({shorten(error)}): install it beside MLflow, and run again"
            )
            raise TrackingError(message) from error
        except (MlflowException, SQLAlchemyError) as error:
            message = f"MLflow: {shorten(error)}; check the store (MLFLOW_TRACKING_URI) and run again"
            raise TrackingError(message) from error


def shorten(error: Exception) -> str:
    """Return the message of an error of MLflow in one line, without secrets, SQL and SQLAlchemy's advice."""
    message = str(error).partition("\n[SQL:")[0].rpartition("is occurring prematurely)\n")[2]
    return printable(" ".join(hide_secrets(message).split()))[:300]


@contextmanager
def patience(uri: str, timeout: int) -> Iterator[None]:
    """Have MLflow wait ``timeout`` seconds and try twice, without bars where nobody sees them; the environment wins.

    Its limits are variables of the process, so that one thread at a time talks to the store. A stop signal waits for
    the end of the block if the store at ``uri`` is a database: an exception within a transaction may leave it open, and
    its lock would then stop this process from closing the run.
    """
    limits = {"MLFLOW_HTTP_REQUEST_TIMEOUT": str(timeout), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
    if not sys.stderr.isatty():
        limits["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with _one_thread, nullcontext() if is_server(uri) else finish_first():
        ours = {key: value for key, value in limits.items() if key not in os.environ}
        os.environ.update(ours)
        try:
            yield
        finally:
            for key in ours:
                os.environ.pop(key, None)


@contextmanager
def fluent(client: MlflowClient) -> Iterator[None]:
    """Lend MLflow's process-wide address to ``client``'s store: ``log_model`` has no client form."""
    # Setting an address also sets MLFLOW_TRACKING_URI; where none was set, none is left behind.
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None  # type: ignore[no-untyped-call]
    mlflow.set_tracking_uri(client.tracking_uri)
    try:
        with patience(client.tracking_uri, UPLOAD_TIMEOUT):
            yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """Keep MLflow's notes (and its database's migration log) off the terminal; warnings still show.

    Without Git on the machine, MLflow's library for it would explain itself in twenty lines, each time.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    with quiet_loggers("mlflow", "alembic", level=logging.WARNING):
        yield


def _open_client(uri: str, registry_uri: str | None) -> MlflowClient:
    try:
        client = MlflowClient(uri, registry_uri)
        client.search_experiments(max_results=1)
    except (ValueError, TypeError, RequestException) as error:  # libraries that take the address apart
        raise TrackingError(
            f"MLflow: cannot open {show_address(uri)} ({shorten(error)}); check MLFLOW_TRACKING_URI"
        ) from error
    return client


def _anchor(variable: str, uri: str, folder: Path) -> str:
    """Check the address in an environment ``variable``; make a relative path in it relative to ``folder``."""
    uri = check_address(variable, uri)
    if uri.startswith("sqlite"):
        url = parse_database(uri)
        path = _find_path(url)
        if not url.database or path.name in ("", ":memory:") or url.query.get("mode") == "memory":
            raise TrackingError(
                f"{variable} is {hide_secrets(uri)}, a database in memory: it keeps no run; name a file"
            )
        return _build_sqlite_uri(folder / path, url.query)
    if is_local_uri(uri):  # type: ignore[no-untyped-call]
        return (folder / Path(local_file_uri_to_path(uri))).as_uri()  # type: ignore[no-untyped-call]
    return uri


def _build_sqlite_uri(path: Path, query: Mapping[str, str | tuple[str, ...]] | None = None) -> str:
    url = URL.create("sqlite", database=str(path), query=query or {})
    is_plain = url.set(query={}).render_as_string() == f"sqlite:///{path}" and not set("?#%") & set(str(path))
    if not is_plain or "uri" in url.query:
        # SQLite's own kind of URI: SQLAlchemy 2.0 escapes no path, and MLflow makes the folder that it reads after
        # `sqlite:///`, escapes and all.
        database = f"file:{quote(str(path))}"
        url = URL.create("sqlite+pysqlite", database=database, query={**url.query, "uri": "true"})
    return url.render_as_string()


def _find_sqlite_file(uri: str) -> Path | None:
    return _find_path(parse_database(uri)) if uri.startswith("sqlite") else None


def _find_path(url: URL) -> Path:
    database = url.database or ""
    return Path(unquote(database.removeprefix("file:")) if database.startswith("file:") else database)


def _name_folder(experiment: str) -> str:
    """Return one plain folder name for an experiment, whatever its name: `/Users/me/x`, `..`, 5,000 characters."""
    if re.fullmatch(r"\w([\w.-]{0,78}\w)?", experiment, re.ASCII):
        return experiment
    plain = re.sub(r"[^\w-]+", "-", experiment, flags=re.ASCII).strip("-")[:60]
    return f"{plain or 'experiment'}-{hashlib.sha256(experiment.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _name_by_id(client: MlflowClient, experiment_id: str, name: str) -> str:
    with one_line_errors():
        try:
            found = client.get_experiment(experiment_id).name
        except MlflowException as error:
            if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            raise TrackingError(
                f"MLFLOW_EXPERIMENT_ID is {experiment_id!r}: no such experiment in this store; set "
                "MLFLOW_EXPERIMENT_NAME, which creates one"
            ) from None
    if name and name != found:
        raise TrackingError(
            f"MLFLOW_EXPERIMENT_ID is {experiment_id}, the experiment {found!r}, and MLFLOW_EXPERIMENT_NAME is "
            f"{name!r}; unset one of them"
        )
    return str(found)


@contextmanager
def _creating_alone(uri: str, file: Path | None) -> Iterator[None]:
    """Keep the other users of an SQLite file, or of PostgreSQL, waiting until the store is open."""
    check_port(uri, OPEN_TIMEOUT)
    if uri.startswith("postgresql"):
        with create_engine(uri, poolclass=NullPool).begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('mlflow'))"))
            yield
        return
    # Where the tables exist and nothing can be written, there is nothing to wait for either.
    is_readable_only = file is None or (file.is_file() and not os.access(file.parent, os.W_OK))
    with nullcontext() if file is None or is_readable_only else hold_lock(file.parent / ".mlflow.lock"):
        yield

"""The subcommand ``gender-classifier ui``: MLflow's pages on the run store, opened where models compare."""

import argparse
import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from gender_classifier.cli.options import number
from gender_classifier.cli.store import sync
from gender_classifier.common.credentials import strip_credentials
from gender_classifier.errors import TrackingError

_HOST = "127.0.0.1"
_PORT = number(int, lambda value: 1 <= value <= 65535, "a port from 1 to 65535")  # a link to port 0 would lead nowhere


def add_ui_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``ui`` to the subcommands."""
    parser = commands.add_parser(
        "ui",
        help="run sync and start the MLflow UI",
        description="Run sync, then start MLflow's UI on the run store, reachable from this machine only.",
    )
    parser.add_argument("--port", type=_PORT, default=5000, help="default: %(default)s")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    sync(options)
    return _show_ui(options.port)


def _show_ui(port: int) -> int:
    """Print the address of the runs; without a server, start one and wait until it is stopped.

    Returns:
        The exit status.

    Raises:
        TrackingError: there is no store, its server does not answer, or the port is taken.
    """
    from gender_classifier.track.run import now_ms
    from gender_classifier.track.runs_view import link_runs_view, renew_runs_view
    from gender_classifier.track.store import connect, find_experiments, find_tracking_uri, locate_store_root

    root = locate_store_root(Path.cwd())
    uri = find_tracking_uri(root)
    is_server = uri.startswith(("http:", "https:"))
    link = strip_credentials(uri) if is_server else f"http://{_HOST}:{port}"
    client = connect(root, create=False)
    models = next((found for name, found in find_experiments(client).items() if not name.endswith("-data")), None)
    if models is not None:
        for key, value in renew_runs_view(client.get_experiment(models).tags, now_ms()).items():
            client.set_experiment_tag(models, key, value)
    link = link_runs_view(link, models)
    if is_server:
        print(f"MLflow UI: {link}")
        return 0
    print(f"starting MLflow's server on port {port}; its address follows when it answers", file=sys.stderr, flush=True)
    with _start_server(uri, port) as server:
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        try:
            while server.poll() is None and not _answers(port):
                time.sleep(0.1)
            if server.poll() is None:
                print(f"MLflow UI: {link}  (Ctrl-C stops it)", flush=True)
            status = server.wait()
        except KeyboardInterrupt:
            server.terminate()
            raise
    return status if status >= 0 else 128 - status


def _start_server(uri: str, port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("mlflow", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise TrackingError("mlflow: no such program; install the project with its extra `pipeline`")
    try:
        socket.create_server((_HOST, port)).close()
    except OSError as error:
        raise TrackingError(f"{_HOST}:{port}: cannot listen there ({error.strerror}); name another port") from None
    command = [program, "ui", "--workers", "1", "--host", _HOST, "--port", str(port)]
    # With its jobs it starts 15 processes and takes 2 GB. The address may hold a password: no argument.
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_BACKEND_STORE_URI": uri}
    return subprocess.Popen(command, env=os.environ | settings)  # noqa: S603


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(_HOST, port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()

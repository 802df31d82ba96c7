"""Real servers on loopback, each in a folder of its own: MLflow's, and PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from checkout import Checkout

USER, PASSWORD = "admin", "a-password-for-tests"


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def serving(
    command: list[str], folder: Path, is_up: Callable[[], bool], **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the block ends; it has said that it is up."""
    log = folder / "server.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=Checkout.environment(**variables), stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 90
        while not is_up():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process
    finally:
        kill_session(process)


def kill_session(process: subprocess.Popen[bytes]) -> None:
    """End a process and all it has started, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait(30)


def answers(url: str, status: int = 200) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


@contextmanager
def mlflow_server(
    folder: Path, port: int, *, auth: bool = False, backend: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server with an artifact store of its own, which clients reach through it."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("mlflow")), "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    variables = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_BACKEND_STORE_URI": backend or f"sqlite:///{folder / 'mlflow.db'}",
    }
    if auth:
        command += ["--app-name", "basic-auth"]
        settings = {
            "default_permission": "READ",
            "database_uri": f"sqlite:///{folder / 'users.db'}",
            "admin_username": USER,
            "admin_password": PASSWORD,
            "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
            "auth_cache_ttl_seconds": "600",  # or each request is a hash: a tenth of a second
        }
        lines = [f"{key} = {value}" for key, value in settings.items()]
        (folder / "auth.ini").write_text("\n".join(["[mlflow]", *lines, ""]))
        variables |= {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "only-here",
        }
    with serving(command, folder, lambda: answers(f"http://127.0.0.1:{port}/health"), **variables) as process:
        yield process


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL of its own; yields the address of an empty database."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("initdb") or (str(programs[-1] / "initdb") if programs else None)
    assert found, "initdb: no such program; install PostgreSQL (Debian: apt-get install postgresql)"
    port, data = free_port(), folder / "data"
    folder.mkdir(parents=True)
    as_user: Mapping[str, object] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        owner = pwd.getpwnam("postgres")
        os.chown(folder, owner.pw_uid, owner.pw_gid)
        for parent in folder.parents:
            if parent.owner() == "root" and not parent.stat().st_mode & 1:
                parent.chmod(parent.stat().st_mode | 1)
        as_user = {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    tool = Path(found).resolve().parent

    def run(program: str, *arguments: str, check: bool = True) -> bool:
        done = subprocess.run(
            [str(tool / program), *arguments], cwd=folder, capture_output=True, text=True, check=False, **as_user
        )  # type: ignore[call-overload]
        assert done.returncode == 0 or not check, done.stderr
        return bool(done.returncode == 0)

    run("initdb", "--pgdata", str(data), "--username", "tester", "--auth", "trust", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "start", "--wait", "--pgdata", str(data), "--log", str(folder / "server.log"), "--options", options)
    try:
        run("createdb", "--host", "127.0.0.1", "--port", str(port), "--username", "tester", "mlflow")
        yield f"postgresql+psycopg://tester@127.0.0.1:{port}/mlflow"
    finally:
        run("pg_ctl", "stop", "--mode", "immediate", "--pgdata", str(data), check=False)

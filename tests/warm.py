"""A process that has already imported what commands import, and forks one whenever a test, or its DVC, starts it.

A small run spends most of its time on these imports, and the tests start hundreds of stages and commands. What is
forked has the arguments, folder, environment, input and outputs of the command that was started, and ends with its
status. None of the project's own code is imported before: each stage imports that of its checkout. Signals are not
handed on, and all forks hash alike, so tests that stop them or compare them start real interpreters.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

_MODULES = (
    "torch", "torch.export", "torch.fx.experimental.optimization", "torchvision.models", "mlflow", "mlflow.onnx",
    "mlflow.system_metrics.system_metrics_monitor", "mlflow.store.tracking.sqlalchemy_store", "sklearn.metrics",
    "scipy.optimize", "scipy.sparse.linalg", "onnx", "onnxruntime", "onnxscript.function_libs.torch_lib.ops",
    "torch.onnx._internal.exporter._core", "torch.export._trace", "matplotlib.figure", "matplotlib.backends.backend_agg",
    "pydantic", "jinja2", "loky", "dvc.api", "dvc.cli.parser", "dvc.repo.reproduce", "dvc.repo.experiments.run",
    "dvc.repo.experiments.show", "dvc.repo.experiments.executor.local", "dvc.repo.experiments.queue.celery",
)  # fmt: skip


@functools.cache
def warm_programs() -> Path:
    """Start the process, for as long as this one lives; return a folder of programs that ask it.

    ``stages`` has a ``python`` to put first in DVC's PATH, ``commands`` the commands that a user types.
    """
    folder = Path(tempfile.mkdtemp(prefix="warm-"))  # a socket's path is short
    atexit.register(shutil.rmtree, folder)
    code = shlex.join([sys.executable, "-IS", str(Path(__file__).resolve())])
    code = f"exec {code} {shlex.quote(str(folder / 'socket'))}"
    python = f'case "$1" in\nstages/*.py) {code} "$@" ;;\n*) exec {shlex.quote(sys.executable)} "$@" ;;\nesac'
    installed = {name: Path(sys.executable).with_name(name) for name in ("dvc", "gender-classifier")}
    commands = {f"commands/{name}": f'{code} {shlex.quote(str(path))} "$@"' for name, path in installed.items()}
    for name, script in {"stages/python": python, **commands}.items():
        program = folder / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    # It reads from this process: it ends when this one does. Its first byte says that it listens.
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), str(folder / "socket")], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    atexit.register(server.communicate)
    assert server.stdout is not None
    assert server.stdout.read(1), "the process that starts commands has ended"
    return folder


def ask(address: str, words: list[str]) -> int:
    """Have the command ``words`` run with this process's folder, environment, input and outputs; return its status."""
    message = json.dumps([words, os.getcwd(), dict(os.environ)]).encode()  # noqa: PTH109
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [len(message).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(message)
        return int.from_bytes(connection.recv(1), "big")


def serve(address: str) -> None:
    for name in _MODULES:
        importlib.import_module(name)
    with socket.socket(socket.AF_UNIX) as listener, selectors.DefaultSelector() as selector:
        listener.bind(address)
        listener.listen(64)
        for source in (listener, sys.stdin):
            selector.register(source, selectors.EVENT_READ)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait for a command
        gc.freeze()  # or a fork's first collection copies every page that it shares with this process, for seconds
        os.write(1, b"\n")
        while not any(key.fileobj is sys.stdin for key, _ in selector.select()):
            connection, _ = listener.accept()
            if not os.fork():
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _start(connection)
            connection.close()


def _start(connection: socket.socket) -> None:
    """Fork the command and report its status, in a process of its own."""
    head, outputs, _, _ = socket.recv_fds(connection, 8, 3)
    size, message = int.from_bytes(head, "big"), b""
    while len(message) < size:
        message += connection.recv(size - len(message))
    words, folder, environment = json.loads(message)
    command = os.fork()
    if command:
        status = os.waitstatus_to_exitcode(os.waitpid(command, 0)[1])
        connection.send((status if status >= 0 else 128 - status).to_bytes(1, "big"))
        os._exit(0)
    connection.close()
    for number, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        os.dup2(outputs[number], number)
        os.close(outputs[number])
        old = getattr(sys, name)  # knows whether it can seek in what it was opened for
        setattr(sys, name, open(number, mode, encoding=old.encoding, errors=old.errors, closefd=False))  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
    status: str | int | None = 1
    try:
        runpy.run_path(words[0], run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code
    except BaseException:  # what an interpreter would do
        traceback.print_exc()
    if isinstance(status, str):
        sys.stderr.write(f"{status}\n")
    # An interpreter's end, but for the destruction of all modules, which takes a second.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        sys.exit(ask(sys.argv[1], sys.argv[2:]))
    with contextlib.suppress(KeyboardInterrupt):
        serve(sys.argv[1])

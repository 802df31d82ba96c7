"""The common part of all stage scripts: options, signals, and how errors are reported."""

import argparse
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import NoReturn

from gender_classifier.common.logs import add_log_options, show_logs, wants_traceback
from gender_classifier.common.paths import Layout, find_checkout, find_main_root
from gender_classifier.common.processes import is_stopped, stop, stop_with_dvc
from gender_classifier.common.terminal import complain, describe_os_error, make_output_safe, printable
from gender_classifier.errors import GenderClassifierError
from gender_classifier.pipeline.params import Params, load_params
from gender_classifier.pipeline.unchanged import expect_unchanged

_WAY_BACK = (
    "params.yaml keeps this experiment's values: run again with others, or undo it: "
    "`git checkout params.yaml && dvc repro`"
)


def run_stage(name: str, main: Callable[[Layout, Params], None], description: str | None = None) -> None:
    """Run ``main`` on the checkout around the working folder; an error becomes one line and exit status 1.

    Args:
        name: name of the stage, put before each message.
        main: the stage's work.
        description: text for ``--help``.
    """
    if not gc.isenabled():  # a script of stages/ has imported what it needs
        gc.freeze()  # modules stay: no collection has to search them
        gc.enable()
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_log_options(parser)
    options = parser.parse_args()
    make_output_safe()
    show_logs(name, verbose=options.verbose)
    signal.signal(signal.SIGTERM, _raise_exit)
    # Shells start background jobs with SIGINT ignored; stages handle it there too.
    signal.signal(signal.SIGINT, _raise_interrupt)
    stop_with_dvc()
    # Pillow warns about odd EXIF data and large images; verify has its own rules for both.
    warnings.filterwarnings("ignore", module="PIL")
    layout = Layout(find_checkout(Path.cwd()) or Path.cwd())
    try:
        params = load_params(layout.params_path)
        with expect_unchanged(name, layout, params):
            main(layout, params)
        sys.stdout.flush()
    except KeyboardInterrupt:
        _fail(name, "interrupted", 128 + signal.SIGINT)
    except Exception as error:
        if is_stopped():
            _fail(name, "stopped", 128 + signal.SIGTERM)
        if wants_traceback(options):
            raise
        text = _describe(error, layout.root)
        if find_main_root(layout.root) != layout.root.resolve():  # paths in DVC's copy lead nowhere once it is gone
            text = text.replace(f"{layout.root}/", "")
        _fail(name, text, 1)


def point_to(name: str, run: str, *paths: str) -> None:
    """Print where to look at what a stage has made: its files, and the MLflow run at ``run``."""
    print(f"{name}: look at {', '.join(paths)}; MLflow run {run}")


def _describe(error: Exception, root: Path) -> str:
    text = printable(" ".join(str(error).split()))
    if isinstance(error, GenderClassifierError):
        return text + (f"; {_WAY_BACK}" if _is_experiment_in_place(root) else "")
    if isinstance(error, OSError):
        return f"{describe_os_error(error)}; check the disk's free space and permissions, then run again"
    return f"unexpected {type(error).__name__}: {text}; please report it with the output of --debug"


def _is_experiment_in_place(root: Path) -> bool:
    """Tell whether `dvc exp run` wrote its `-S` values to the user's own params.yaml; `--temp` works on a copy."""
    return bool(os.environ.get("DVC_EXP_NAME")) and find_main_root(root) == root.resolve()


def _fail(name: str, message: str, status: int) -> NoReturn:
    complain(name, message)
    sys.exit(status)


def _raise_exit(number: int, _: FrameType | None) -> None:
    """Unwind the stack as Ctrl-C does, so that files are closed and the run is marked KILLED.

    A second signal, as of DVC and of the shell, would interrupt that.
    """
    signal.signal(number, signal.SIG_IGN)
    stop(SystemExit(128 + number))


def _raise_interrupt(_: int, __: FrameType | None) -> None:
    stop(KeyboardInterrupt())

"""What every stage script has in common: where it runs, and how it fails."""

import argparse
import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from gender_classifier.common.logs import LEVEL_VARIABLE, show_logs
from gender_classifier.common.paths import Layout, find_checkout
from gender_classifier.common.processes import is_stopped, note_stop, stop_with_dvc
from gender_classifier.common.terminal import complain, describe_os_error, make_output_safe, printable
from gender_classifier.errors import GenderClassifierError
from gender_classifier.pipeline.params import Params, load_params

DEBUG_VARIABLE = "GENDER_CLASSIFIER_DEBUG"


def run_stage(name: str, main: Callable[[Layout, Params], None], description: str | None = None) -> None:
    """Run ``main`` on the project around the working folder; turn errors into one line and status 1.

    Args:
        name: of the stage; stands before each error.
        main: the stage.
        description: for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--debug", action="store_true", help=f"show tracebacks (or set {DEBUG_VARIABLE}=1)")
    parser.add_argument("--verbose", action="store_true", help=f"log more (or set {LEVEL_VARIABLE}=DEBUG)")
    options = parser.parse_args()
    debug = options.debug or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
    make_output_safe()
    show_logs(name, verbose=options.verbose)
    signal.signal(signal.SIGTERM, _raise_exit)
    # A shell starts background jobs with SIGINT ignored; a stage can be stopped there too.
    signal.signal(signal.SIGINT, _raise_interrupt)
    stop_with_dvc()
    # Pillow warns of odd EXIF data and of large images; verify judges both by its own rules.
    warnings.filterwarnings("ignore", module="PIL")
    layout = Layout(find_checkout(Path.cwd()) or Path.cwd())
    try:
        main(layout, load_params(layout.params_path))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(_complain(name, "interrupted", 130))
    except Exception as error:
        if is_stopped():
            sys.exit(_complain(name, "stopped", 128 + signal.SIGTERM))
        if debug:
            raise
        sys.exit(_complain(name, _describe(error), 1))


def point_to(name: str, run: str, *paths: str) -> None:
    """Print where to look at what a stage has made: its files, and the MLflow run at ``run``."""
    print(f"{name}: look at {', '.join(paths)}; MLflow run {run}")


def _describe(error: Exception) -> str:
    text = printable(" ".join(str(error).split()))
    if isinstance(error, GenderClassifierError):
        return text
    if isinstance(error, OSError):
        return f"{describe_os_error(error)}; check the disk's free space and permissions, then run again"
    return f"unexpected {type(error).__name__}: {text}; please report it with the output of --debug"


def _complain(name: str, message: str, status: int) -> int:
    complain(name, message)
    return status


def _raise_exit(number: int, _: FrameType | None) -> None:
    """Unwind as Ctrl-C does, so that files are closed and the run is marked KILLED."""
    note_stop()
    sys.exit(128 + number)


def _raise_interrupt(_: int, __: FrameType | None) -> None:
    note_stop()
    raise KeyboardInterrupt

"""The command ``gender-classifier``."""

import argparse
import signal
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from gender_classifier.cli.calibrate import add_calibrate_command
from gender_classifier.cli.monitor import add_monitor_command
from gender_classifier.cli.predict import add_predict_command
from gender_classifier.cli.quantize import add_quantize_command
from gender_classifier.cli.review import add_review_command
from gender_classifier.cli.serve import add_serve_command
from gender_classifier.common.logs import add_log_options, show_logs, wants_traceback
from gender_classifier.common.terminal import complain, describe_os_error, drop_output, make_output_safe
from gender_classifier.errors import GenderClassifierError, needs_extra
from gender_classifier.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 0, 1 for an error, 2 for wrong usage, 128 + N for signal N."""
    make_output_safe()
    # Pillow warns about odd EXIF data and large images; what matters of it is in the results.
    warnings.filterwarnings("ignore", module="PIL")
    name, options = "gender-classifier", None
    try:
        try:
            options = _parse(arguments)
            name = f"{name} {options.command}"
            show_logs(name, verbose=options.verbose)
            return int(options.run(options) or 0)
        finally:  # also after --help: report a full disk before the exit status is decided
            sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        drop_output()
        return 128 + signal.SIGPIPE
    except (GenderClassifierError, OSError) as error:
        if isinstance(error, OSError):
            drop_output()
        if wants_traceback(options):
            raise
        complain(name, describe_os_error(error) if isinstance(error, OSError) else error)
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; what a subcommand does not know is reported with the subcommand's own usage."""
    parser, commands = _build_parser()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        commands[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    return options


def _build_parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the subcommands."""
    parser = argparse.ArgumentParser(
        prog="gender-classifier", description="Use the trained model, the run store and the model registry."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sync = commands.add_parser(
        "sync",
        help="send pending entries to MLflow, mark dead runs, name restored experiments",
        description="Send entries that the MLflow store missed during an outage, mark runs whose process has died as "
        "KILLED, and name runs after the DVC experiments that were restored from the run cache.",
    )
    sync.set_defaults(run=_sync)

    ui = commands.add_parser(
        "ui",
        help="run sync and start the MLflow UI",
        description="Run sync, then start MLflow's UI on the run store, reachable from this machine only.",
    )
    ui.add_argument("--port", type=int, default=5000)
    ui.set_defaults(run=_ui)

    promote = commands.add_parser("promote", help="make a version champion by hand")
    promote.add_argument("version", help="number of the version in the registry")
    promote.add_argument("--reason", default="no reason given", help="stored with the version")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser("rollback", help="make the previous version champion again")
    rollback.add_argument("--reason", default="no reason given", help="stored with the version that is replaced")
    rollback.set_defaults(run=_rollback)

    add_predict_command(commands)
    add_quantize_command(commands)
    add_calibrate_command(commands)
    add_serve_command(commands)
    add_monitor_command(commands)
    add_review_command(commands)
    for command in commands.choices.values():
        add_log_options(command)
    return parser, commands.choices


def _sync(_: argparse.Namespace) -> None:
    from gender_classifier.common.paths import Layout

    with needs_extra("pipeline"):
        from gender_classifier.track.delivery import catch_up
        from gender_classifier.track.experiments import find_dvc_experiments, name_experiments
        from gender_classifier.track.outbox import find_strays
        from gender_classifier.track.store import connect, locate_store_root, name_store

    root = locate_store_root(Path.cwd())
    client = connect(root, create=False)
    completed, marked = catch_up(client, root)
    named = name_experiments(client, find_dvc_experiments(root))
    print(f"sync: {completed} runs completed, {marked} marked KILLED, {named} experiment names added")
    folder = Layout(root).outbox_dir
    strays = find_strays(folder, name_store(client.tracking_uri, root))
    if strays:
        print(
            f"sync: {len(strays)} runs in {folder} have entries for stores at other addresses: set MLFLOW_TRACKING_URI "
            "to their address, or remove their folders"
        )


def _ui(options: argparse.Namespace) -> int:
    from gender_classifier.cli.ui import show_ui

    _sync(options)
    return show_ui(options.port)


def _promote(options: argparse.Namespace) -> None:
    with needs_extra("pipeline"):
        from gender_classifier.track.registry import promote
        from gender_classifier.track.store import connect, locate_store_root

    before = promote(connect(locate_store_root(Path.cwd()), create=False), options.version, options.reason)
    print(f"champion: version {options.version}" + (f", before it version {before}" if before else ""))


def _rollback(options: argparse.Namespace) -> None:
    with needs_extra("pipeline"):
        from gender_classifier.track.registry import rollback
        from gender_classifier.track.store import connect, locate_store_root

    lost, gained = rollback(connect(locate_store_root(Path.cwd()), create=False), options.reason)
    print(f"champion: version {gained}, taken from version {lost}")

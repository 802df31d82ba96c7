"""The command ``gender-classifier``."""

import argparse
import atexit
import difflib
import gc
import re
import signal
import sys
import warnings
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module

from gender_classifier.common.logs import add_log_options, show_logs, wants_traceback
from gender_classifier.common.terminal import complain, describe_os_error, drop_output, make_output_safe
from gender_classifier.errors import GenderClassifierError
from gender_classifier.version import __version__

_COMMANDS: Mapping[str, str] = {
    "sync": "store",
    "ui": "ui",
    "promote": "store",
    "rollback": "store",
    "predict": "predict",
    "quantize": "quantize",
    "calibrate": "calibrate",
    "serve": "serve",
    "monitor": "monitor",
    "review": "review",
}
"""The module of each subcommand, in the order of the help. ``add_NAME_command`` there takes argparse's subparsers."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand and return its exit status: 0, 1 for an error, 2 for wrong usage, 128 + N for signal N."""
    # As it ends, the interpreter would search all modules for garbage, which takes a tenth of a prediction's time.
    atexit.register(gc.freeze)
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
    given = sys.argv[1:] if arguments is None else arguments
    parser, commands = _build_parser(given)
    if given and not given[0].startswith("-") and given[0] not in commands:
        near = _suggest(given[:1], commands)
        parser.error(f"unknown command {given[0]!r}{near}" + ("" if near else f"; known are {', '.join(commands)}"))
    options, unknown = parser.parse_known_args(given)
    if unknown:
        command = commands[options.command]
        known = re.findall(r"--[\w-]+", command.format_help())
        command.error(f"unrecognized arguments: {' '.join(unknown)}{_suggest(unknown, known)}")
    return options


def _suggest(unknown: Sequence[str], known: Iterable[str]) -> str:
    """Return which of ``known`` a mistyped word of ``unknown`` may stand for, as the end of an error."""
    choices = list(known)
    near = [name for word in unknown for name in difflib.get_close_matches(word.partition("=")[0], choices, 1, 0.7)]
    return f"; did you mean {near[0]}?" if near else ""


def _build_parser(given: Sequence[str]) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the parser, and those of the subcommands.

    If ``given`` starts with a subcommand, the others are left out: importing them would take longer than a prediction.
    """
    parser = argparse.ArgumentParser(
        prog="gender-classifier", description="Use the trained model, the run store and the model registry."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in [name for name in given[:1] if name in _COMMANDS] or _COMMANDS:
        module = import_module(f"gender_classifier.cli.{_COMMANDS[name]}")
        getattr(module, f"add_{name}_command")(commands)
    for command in commands.choices.values():
        add_log_options(command)
    return parser, commands.choices

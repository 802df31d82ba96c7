"""The command ``gender-classifier``: what a person does beside the pipeline."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gender_classifier.errors import GenderClassifierError
from gender_classifier.layout import find_main_root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; return the exit status: 0, 1 for an error, 2 for wrong usage."""
    parser = argparse.ArgumentParser(prog="gender-classifier", description="Run store and model registry.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    sync = commands.add_parser(
        "sync",
        help="send what MLflow has missed; mark dead runs; name restored experiments",
        description="Send what the MLflow store missed during an outage, mark runs KILLED whose process has died, and "
        "give runs the names of DVC experiments that were restored from the run cache.",
    )
    sync.set_defaults(run=_sync)

    promote = commands.add_parser("promote", help="make a version champion by hand")
    promote.add_argument("version", help="number of the version in the registry")
    promote.add_argument("--reason", default="no reason given", help="kept on the version")
    promote.set_defaults(run=_promote)

    rollback = commands.add_parser("rollback", help="give champion back to the version before")
    rollback.add_argument("--reason", default="no reason given", help="kept on the version that loses it")
    rollback.set_defaults(run=_rollback)

    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except GenderClassifierError as error:
        print(f"gender-classifier {options.command}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _sync(_: argparse.Namespace) -> None:
    from gender_classifier.experiments import find_dvc_experiments
    from gender_classifier.tracking import catch_up, connect, name_experiments

    root = _find_root()
    client = connect(root, create=False)
    completed, marked = catch_up(client, root)
    named = name_experiments(client, [(one.name, one.run_id) for one in find_dvc_experiments(root)])
    print(f"sync: {completed} runs completed, {marked} marked KILLED, {named} experiment names added")


def _promote(options: argparse.Namespace) -> None:
    from gender_classifier.registry import promote
    from gender_classifier.tracking import connect

    before = promote(connect(_find_root(), create=False), options.version, options.reason)
    print(f"champion: version {options.version}" + (f", before it version {before}" if before else ""))


def _rollback(options: argparse.Namespace) -> None:
    from gender_classifier.registry import rollback
    from gender_classifier.tracking import connect

    lost, gained = rollback(connect(_find_root(), create=False), options.reason)
    print(f"champion: version {gained}, taken from version {lost}")


def _find_root() -> Path:
    return find_main_root(Path.cwd())


if __name__ == "__main__":
    sys.exit(main())

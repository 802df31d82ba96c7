"""The subcommands ``gender-classifier sync``, ``promote`` and ``rollback``, on the run store and the registry."""

import argparse
from pathlib import Path

from gender_classifier.errors import needs_extra


def add_sync_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``sync`` to the subcommands."""
    parser = commands.add_parser(
        "sync",
        help="send pending entries to MLflow, mark dead runs, name restored experiments",
        description="Send entries that the MLflow store missed during an outage, mark runs whose process has died as "
        "KILLED, and name runs after the DVC experiments that were restored from the run cache.",
    )
    parser.set_defaults(run=sync)


def add_promote_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``promote`` to the subcommands."""
    parser = commands.add_parser("promote", help="make a version champion by hand")
    parser.add_argument("version", help="number of the version in the registry")
    parser.add_argument("--reason", default="no reason given", help="stored with the version")
    parser.set_defaults(run=_promote)


def add_rollback_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``rollback`` to the subcommands."""
    parser = commands.add_parser("rollback", help="make the previous version champion again")
    parser.add_argument("--reason", default="no reason given", help="stored with the version that is replaced")
    parser.set_defaults(run=_rollback)


def sync(_: argparse.Namespace) -> None:
    """Complete the store, and print what was missing."""
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


def _promote(options: argparse.Namespace) -> None:
    with needs_extra("pipeline"):
        from gender_classifier.track.registry import promote
        from gender_classifier.track.store import connect, locate_store_root

    before, refusal = promote(connect(locate_store_root(Path.cwd()), create=False), options.version, options.reason)
    if before == options.version:
        print(f"champion: version {before}, as before")
        return
    print(f"champion: version {options.version}" + (f", before it version {before}" if before else ""))
    if refusal:
        print(f"the rule of evaluate.promotion had said: {refusal}")


def _rollback(options: argparse.Namespace) -> None:
    with needs_extra("pipeline"):
        from gender_classifier.track.registry import rollback
        from gender_classifier.track.store import connect, locate_store_root

    lost, gained = rollback(connect(locate_store_root(Path.cwd()), create=False), options.reason)
    print(f"champion: version {gained}, taken from version {lost}")

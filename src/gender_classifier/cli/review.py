"""The subcommand ``gender-classifier review``."""

import argparse
import secrets
from pathlib import Path

from gender_classifier.cli.options import add_max_pixels_option, port
from gender_classifier.common.files import read_json
from gender_classifier.common.paths import Layout, find_checkout
from gender_classifier.common.terminal import printable
from gender_classifier.errors import InputError, needs_extra

_HOST = "127.0.0.1"

_DESCRIPTION = """\
Open a page, reachable from this machine only, that shows the images whose labels are likely wrong, and write what you
decide about each to data/corrections.csv at once. The next `dvc repro` applies it. With --unfamiliar, the images are
those least like the training images: drawings, empty crops, several faces. With --merge, take in the decisions of
other people's files instead: of two about one image, the later is kept, and each disagreement is printed.
"""


def add_review_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``review`` to the subcommands."""
    parser = commands.add_parser(
        "review",
        help="look at suspected wrong labels in a page, and correct them",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--unfamiliar", action="store_true", help="look at unfamiliar images; remove what is no face")
    what.add_argument("--merge", nargs="+", type=Path, metavar="FILE", help="other corrections.csv files to take in")
    parser.add_argument("--port", type=port, default=8001, help="default: %(default)s; 0 for any free port")
    add_max_pixels_option(parser)
    parser.set_defaults(run=run_review)


def run_review(options: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        GenderClassifierError: there is no checkout here, a file of it is missing or damaged, or the port is taken.
    """
    root = find_checkout(Path.cwd())
    if root is None:
        raise InputError(f"{Path.cwd()}: no dvc.yaml here or above; run it in a checkout of the project")
    if options.merge:
        _merge(Layout(root).corrections_path, options.merge)
    else:
        _review(Layout(root), options)


def _merge(path: Path, other_paths: list[Path]) -> None:
    with needs_extra("pipeline"):
        from gender_classifier.data.corrections import edit_corrections, merge_corrections, read_corrections

    read = [read_corrections(other_path) for other_path in other_paths]
    disagreements = []
    with edit_corrections(path) as corrections:
        before = len(corrections)
        for other in read:
            merged, more = merge_corrections(corrections, other)
            corrections.update(merged)
            disagreements += more
        total = len(corrections)
    for found in disagreements:
        kept, dropped = found.kept, found.dropped
        what = f"{kept.describe()} of {kept.decided_at} replaces {dropped.describe()} of {dropped.decided_at}"
        print(printable(f"{kept.path} ({kept.sha256[:12]}): {what}"))
    print(f"{path}: {total - before:,} decisions added, {len(disagreements):,} disagreements, {total:,} in all")


def _review(layout: Layout, options: argparse.Namespace) -> None:
    with needs_extra("pipeline", "serve"):
        import numpy as np

        from gender_classifier.cli.listening import run_app
        from gender_classifier.data.archive import Archive
        from gender_classifier.data.corrections import read_corrections
        from gender_classifier.data.dataset import read_info
        from gender_classifier.metrics.scores import compare_with_constant
        from gender_classifier.serve.review.app import build_review_app
        from gender_classifier.serve.review.session import Review
        from gender_classifier.serve.review.suspects import load_suspects

    if layout.val_confusion_path.is_file() and not options.unfamiliar:
        counts = read_json(layout.val_confusion_path)
        if problem := compare_with_constant(np.array([list(row.values()) for row in counts.values()]), list(counts)):
            print(f"{layout.suspects_path}: {problem}: do not trust these suspects")
    classes = read_info(layout.dataset_path).classes
    with Archive(layout.raw_archive_path) as archive:
        decided = read_corrections(layout.corrections_path)
        suspects = load_suspects(layout, archive, classes, decided, is_unfamiliar=options.unfamiliar)
        if suspects.outdated:
            print(f"suspects left out, as the data have changed since: {suspects.outdated:,}; run `dvc repro`")
        if not suspects.open:
            path, what = layout.suspects_path, "suspects"
            if options.unfamiliar:
                path, what = layout.strangers_path, "unfamiliar images"
            print(f"{path}: no {what} are left to review")
            return
        token = secrets.token_urlsafe(32)

        def announce(_: str, address: str) -> None:
            print(f"{len(suspects.open):,} images to review: {address}/#{token}  (Ctrl-C stops it)", flush=True)

        review = Review(suspects.open, classes, archive, layout.corrections_path)
        run_app(build_review_app(review, token, options.max_pixels), _HOST, options.port, announce, "--port")

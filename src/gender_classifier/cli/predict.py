"""The subcommand ``gender-classifier predict``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gender_classifier.cli.options import add_max_pixels_option, add_model_option, add_threshold_option
from gender_classifier.cli.reporting import report_unreadable, show_progress
from gender_classifier.common.terminal import BYTES_OR_ESCAPES, make_output_safe, printable
from gender_classifier.data.names import SAMPLE_NOTE

if TYPE_CHECKING:
    from PIL import Image

    from gender_classifier.predict.inputs import Named
    from gender_classifier.predict.predictor import Prediction, Predictor

_UNCERTAIN, _UNFAMILIAR, _NO_FACE, _FAILED = "uncertain", "unfamiliar image", "no face", ""
_KNOWS_DRAWINGS = (
    "the model was trained on drawings, the built-in sample: its labels say nothing about photographs; "
    "see --model pretrained"
)
# Said after the labels.
_ASIDE = {_UNFAMILIAR: "unfamiliar", _NO_FACE: "without a face", _FAILED: "not read (see above)"}
_ADVICE = " (if they are no tight crops, --faces finds the faces)"
_MOST_NAMED = 3  # images written by --draw that the last line names

_DESCRIPTION = """\
Classify images, each a tight crop of one face.

PATH is an image, a folder (searched to any depth), a .zip archive, a quoted pattern ('photos/**/*.jpg'), or - for an
image on standard input. Results are printed in order as they are computed. Memory does not grow with the number of
images.
"""

_EPILOG = """\
exit status: 0; 1 for an error, or if an image could not be read or a PATH has none (each is reported on standard error,
the others are still classified); 2 for wrong usage; 130 if interrupted.
"""


def add_predict_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``predict`` to the subcommands."""
    parser = commands.add_parser(
        "predict",
        help="classify images: files, folders, patterns, zip archives, standard input",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH")
    add_model_option(parser)
    parser.add_argument(
        "--format",
        choices=("table", "json", "csv"),
        default="table",
        help="table (default) for people; json: JSON Lines, one object per line; csv: with a header",
    )
    add_threshold_option(parser)
    add_max_pixels_option(parser)
    parser.add_argument(
        "--faces",
        action="store_true",
        help="PATHs are whole images: find the faces in each and print a row per face with its box (extra `faces`)",
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FOLDER",
        help="with --faces: write each image there as NAME.faces.jpg, with boxes and labels; later runs with --faces "
        "leave it out",
    )
    parser.set_defaults(run=lambda options: run_predict(options, parser))


def run_predict(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Run the subcommand and return its exit status."""
    if options.draw and not options.faces:
        parser.error("--draw needs --faces")
    try:
        return _predict(options)
    except KeyboardInterrupt:
        # A regular exit would wait for a worker that reads from a terminal.
        sys.stderr.flush()
        os._exit(130)


def _predict(options: argparse.Namespace) -> int:
    from gender_classifier.predict.inputs import find_images
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.track.model_source import find_model

    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=1, max_pixels=options.max_pixels)
    images, drawn, left_out = find_images(options.paths), set[str](), list[str]()
    # Bound to a name, or Ctrl-C would close the generator with the loop, and wait for a worker that reads a terminal.
    predictions = (
        _find_faces(predictor, images, options, drawn, left_out) if options.faces else predictor.predict(images)
    )
    write = _choose_writer(options.format, predictor.classes, faces=options.faces)
    counts = Counter[str]()
    with show_progress(disable=sys.stdout.isatty()) as advance:  # rows in a terminal show the progress
        for prediction in predictions:
            label = _judge(prediction, options.threshold)
            if prediction.error:
                report_unreadable("predict", prediction.name, prediction.error)
            counts[_FAILED if prediction.error else label or _NO_FACE] += 1
            counts[_UNFAMILIAR] += prediction.unfamiliar is True
            write(prediction, label)
            advance(1)
    if options.format == "table":
        print(_summarize(counts, (*predictor.classes, _UNCERTAIN), options), file=sys.stderr)
        if SAMPLE_NOTE in predictor.metadata.get("limits", ""):
            print(f"gender-classifier predict: {_KNOWS_DRAWINGS}", file=sys.stderr)
    if drawn:
        print(f"gender-classifier predict: {_list_drawn(options.draw, drawn)}", file=sys.stderr)
    if left_out:
        line = f"left out {_count_images(len(left_out))} that --draw wrote, such as {printable(min(left_out))}"
        print(f"gender-classifier predict: {line}", file=sys.stderr)
    return int(counts[_FAILED] > 0)


def _summarize(counts: Counter[str], labels: Sequence[str], options: argparse.Namespace) -> str:
    """Return one line with the number of images, or faces, that got each label, and of those that got none."""
    total = sum(counts[label] for label in labels)
    what = ("face" if options.faces else "image") + ("s" if total != 1 else "")
    listed = [f"{counts[label]:,} {printable(label)}" for label in labels if counts[label]]
    if counts[_UNCERTAIN]:
        listed[-1] += f" (below {options.threshold:g})"
    line = f"{total:,} {what}" + (f": {', '.join(listed)}" if listed else "")
    others = [f"{counts[key]:,} {words}" for key, words in _ASIDE.items() if counts[key]]
    if counts[_UNFAMILIAR] and not options.faces:
        others[0] += _ADVICE
    return f"gender-classifier predict: {'; '.join([line, *others])}"


def _list_drawn(folder: Path, drawn: Iterable[str]) -> str:
    """Return how many images were written, and the names of the first few."""
    paths = sorted(drawn)
    named = ", ".join(paths[:_MOST_NAMED]) + (f" and {len(paths) - _MOST_NAMED:,} more" if paths[_MOST_NAMED:] else "")
    return printable(f"wrote {_count_images(len(paths))} with boxes to {folder}: {named}")


def _count_images(number: int) -> str:
    return f"{number:,} image{'s' if number != 1 else ''}"


def _find_faces(
    predictor: Predictor, images: Iterable[Named], options: argparse.Namespace, drawn: set[str], left_out: list[str]
) -> Iterator[Prediction]:
    """Find and classify faces.

    Paths of drawn images, relative to ``options.draw``, are added to ``drawn``, and names of drawings among ``images``
    to ``left_out``.
    """
    from gender_classifier.predict.faces import FaceFinder, draw_faces, predict_faces, save_drawn

    taken = dict[str, str]()

    def show(image: Image.Image, predictions: list[Prediction]) -> None:
        boxes = []
        for prediction in predictions:
            if prediction.probs and prediction.box:
                label = _judge(prediction, options.threshold)
                color = None if label == _UNCERTAIN else predictor.classes.index(prediction.label)
                # Never rounded to 1.00.
                prob = f"{prediction.prob:.2f}" if prediction.prob < 0.995 else ">0.99"
                boxes.append((prediction.box, f"{label} {prob}", color))
        drawn.add(str(save_drawn(options.draw, predictions[0].name, draw_faces(image, boxes), taken)))

    return predict_faces(
        predictor, images, FaceFinder(), show=show if options.draw else None, leave_out=left_out.append
    )


def _judge(prediction: Prediction, threshold: float) -> str:
    """Return the label to show; empty if nothing was classified."""
    return prediction.label if not prediction.probs or prediction.prob >= threshold else _UNCERTAIN


def _format_flag(prediction: Prediction) -> str:
    """Return ``true`` or ``false``, or nothing where nobody can tell."""
    return "" if prediction.unfamiliar is None else str(prediction.unfamiliar).lower()


Writer = Callable[["Prediction", str], None]
"""Writes a prediction, with the label to show, to standard output."""


def _choose_writer(format: str, classes: tuple[str, ...], *, faces: bool) -> Writer:
    # Flush every line, so that readers of a pipe get results as they come.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    # File names may be undecodable: CSV keeps their bytes, a table escapes them.
    make_output_safe(errors=BYTES_OR_ESCAPES if format == "csv" else "backslashreplace")
    build = {"table": _build_table_writer, "json": _build_json_writer, "csv": _build_csv_writer}[format]
    return build(classes, faces)


def _build_table_writer(classes: tuple[str, ...], faces: bool) -> Writer:
    # Names come last, since they may have any width and rows are printed before all are known.
    shown = {name: f"{_UNCERTAIN}, rather {name}" for name in classes}  # as on the page
    width = max(map(len, map(printable, (*shown.values(), _NO_FACE))))
    box_head = f"{'left,top,right,bottom':21}  " if faces else ""
    header = f"{'label':{width}}  probability  unfamiliar  {box_head}name"

    def write(prediction: Prediction, label: str) -> None:
        nonlocal header
        if prediction.error:
            return  # reported on standard error
        if header:
            print(header)
            header = ""
        prob = f"{prediction.prob:.4f}" if prediction.probs else ""
        box = f"{','.join(map(str, prediction.box or ())):21}  " if faces else ""
        flag = _format_flag(prediction)
        if label == _UNCERTAIN:
            label = shown[prediction.label]
        print(f"{printable(label or _NO_FACE):{width}}  {prob:>11}  {flag:10}  {box}{printable(prediction.name)}")

    return write


def _build_json_writer(classes: tuple[str, ...], faces: bool) -> Writer:
    def write(prediction: Prediction, label: str) -> None:
        row: dict[str, Any] = {"name": prediction.name}
        if prediction.error:
            row["error"] = prediction.error
        elif prediction.probs:
            probs = {name: round(prob, 6) for name, prob in zip(classes, prediction.probs, strict=True)}
            row |= {"label": label, "prob": round(prediction.prob, 6), "probs": probs}
            row["unfamiliar"] = prediction.unfamiliar
        else:
            row["label"] = None
        if faces and not prediction.error:
            row["box"] = prediction.box
        print(json.dumps(row))

    return write


def _build_csv_writer(classes: tuple[str, ...], faces: bool) -> Writer:
    from gender_classifier.common.files import build_csv_writer
    from gender_classifier.common.spreadsheet import escape_row

    writer = build_csv_writer(sys.stdout)
    show = printable if sys.stdout.isatty() else str  # files keep a name's bytes, which might control a terminal
    edges = ["left", "top", "right", "bottom"] if faces else []
    writer.writerow(["name", "label", "prob", *(f"prob_{name}" for name in classes), "unfamiliar", *edges, "error"])

    def write(prediction: Prediction, label: str) -> None:
        probs = [f"{prob:.6f}" for prob in prediction.probs] or [""] * len(classes)
        prob = f"{prediction.prob:.6f}" if prediction.probs else ""
        box = (prediction.box or [""] * 4) if faces else ()
        flag = _format_flag(prediction)
        writer.writerow(escape_row([show(prediction.name), label, prob, *probs, flag, *box, show(prediction.error)]))

    return write

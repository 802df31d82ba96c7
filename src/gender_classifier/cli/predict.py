"""The command ``gender-classifier predict``: what is shown, counted and returned; the rest is the library's."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gender_classifier.cli.options import add_max_pixels_option, add_model_option, add_threshold_option
from gender_classifier.common.terminal import BYTES_OR_ESCAPES, make_output_safe, printable

if TYPE_CHECKING:
    from PIL import Image

    from gender_classifier.predict.inputs import Named
    from gender_classifier.predict.predictor import Prediction, Predictor

_UNCERTAIN, _NO_FACE, _FAILED = "uncertain", "no face", ""
_WITHOUT_LABEL = {_NO_FACE: "without a face", _FAILED: "not read (see above)"}
_MOST_NAMED = 3  # images that --draw wrote, named in the last line
_SIGPIPE_STATUS, _SIGINT_STATUS = 141, 130  # 128 + the signal, as shells say it of any program

_DESCRIPTION = """\
Classify images, each a tight crop of one face.

PATH is an image, a folder (searched to any depth), a .zip archive, a quoted pattern ('photos/**/*.jpg'), or - for an
image on standard input. Results come while the work goes on, in order; a million images need no more memory than
a hundred.
"""

_EPILOG = """\
exit status: 0; 1 if an image could not be read or a PATH leads to none (each is named on standard error, the rest
goes on); 2 for wrong usage; 130 if interrupted.
"""


def add_predict_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``predict`` to the program's commands."""
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
        help="table for people (default); json: JSON Lines, an object a line as results come; csv: with a header",
    )
    add_threshold_option(parser)
    add_max_pixels_option(parser)
    parser.add_argument(
        "--faces",
        action="store_true",
        help="PATHs are whole images: find the faces in each, a row a face with its box (extra `faces`)",
    )
    parser.add_argument(
        "--draw",
        type=Path,
        metavar="FOLDER",
        help="with --faces: write each image there as NAME.faces.jpg, with boxes and labels",
    )
    parser.set_defaults(run=lambda options: run_predict(options, parser))


def run_predict(options: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Do what ``options`` say; return the exit status."""
    if options.draw and not options.faces:
        parser.error("--draw needs --faces")
    # Pillow's remarks on odd EXIF data and large images: what matters is in the result.
    warnings.filterwarnings("ignore", module="PIL")
    try:
        return _predict(options)
    except BrokenPipeError:  # `| head` has seen enough; nothing is left to flush at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _SIGPIPE_STATUS
    except KeyboardInterrupt:
        # Not the ordinary way out, which would wait for a worker that reads from a terminal.
        sys.stderr.flush()
        os._exit(_SIGINT_STATUS)


def _predict(options: argparse.Namespace) -> int:
    from gender_classifier.predict.inputs import find_pictures
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.track.model_source import find_model

    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=1, max_pixels=options.max_pixels)
    pictures, drawn = find_pictures(options.paths), dict[str, str]()
    predictions = _find_faces(predictor, pictures, options, drawn) if options.faces else predictor.predict(pictures)
    write = _choose_writer(options.format, predictor.classes, faces=options.faces)
    counts = Counter[str]()
    # Named: what has no name ends with the loop that Ctrl-C ends, and would wait for a worker that reads a terminal.
    shown = _show_progress(predictions)
    for prediction in shown:
        label = _judge(prediction, options.threshold)
        if prediction.error:
            _complain(prediction)
        counts[_FAILED if prediction.error else label or _NO_FACE] += 1
        write(prediction, label)
    if options.format == "table":
        print(_summarize(counts, (*predictor.classes, _UNCERTAIN), options), file=sys.stderr)
    if drawn:
        print(f"gender-classifier predict: {_list_drawn(options.draw, drawn)}", file=sys.stderr)
    return int(counts[_FAILED] > 0)


def _summarize(counts: Counter[str], labels: Sequence[str], options: argparse.Namespace) -> str:
    """Return one line: how many images, or faces, got each label, and how many got none."""
    total = sum(counts[label] for label in labels)
    what = ("face" if options.faces else "image") + ("s" if total != 1 else "")
    listed = [f"{counts[label]:,} {printable(label)}" for label in labels if counts[label]]
    if counts[_UNCERTAIN]:
        listed[-1] += f" (below {options.threshold:g})"
    line = f"{total:,} {what}" + (f": {', '.join(listed)}" if listed else "")
    rest = [f"{counts[key]:,} {words}" for key, words in _WITHOUT_LABEL.items() if counts[key]]
    return f"gender-classifier predict: {'; '.join([line, *rest])}"


def _list_drawn(folder: Path, drawn: Iterable[str]) -> str:
    """Say which images were written; of many, the first few."""
    paths = sorted(drawn)
    named = ", ".join(paths[:_MOST_NAMED]) + (f" and {len(paths) - _MOST_NAMED:,} more" if paths[_MOST_NAMED:] else "")
    return printable(f"wrote {len(paths):,} image{'s' if len(paths) > 1 else ''} with boxes to {folder}: {named}")


def _find_faces(
    predictor: Predictor, pictures: Iterable[Named], options: argparse.Namespace, drawn: dict[str, str]
) -> Iterator[Prediction]:
    """Find and classify faces; the paths of images that were drawn are added to ``drawn``, below ``options.draw``."""
    from gender_classifier.predict.faces import FaceFinder, draw_faces, predict_faces, save_drawn

    taken = dict[str, str]()

    def show(image: Image.Image, predictions: list[Prediction]) -> None:
        boxes = []
        for one in predictions:
            if one.probs and one.box:
                label = _judge(one, options.threshold)
                colour = None if label == _UNCERTAIN else predictor.classes.index(one.label)
                # No rounding says that the model is sure.
                boxes.append((one.box, f"{label} {one.prob:.2f}" if one.prob < 0.995 else f"{label} >0.99", colour))
        path = save_drawn(options.draw, predictions[0].name, draw_faces(image, boxes), taken)
        drawn[str(path)] = predictions[0].name

    return predict_faces(predictor, pictures, FaceFinder(), show=show if options.draw else None)


def _judge(prediction: Prediction, threshold: float) -> str:
    """Return the label to show; an empty one where there is nothing to judge."""
    return prediction.label if not prediction.probs or prediction.prob >= threshold else _UNCERTAIN


Writer = Callable[["Prediction", str], None]
"""Writes one result, with the label to show, to standard output."""


def _choose_writer(format: str, classes: tuple[str, ...], *, faces: bool) -> Writer:
    # A line at a time also into a pipe: whoever reads it sees results as they come.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(line_buffering=True)
    # File names may be no text in any encoding; CSV gives their bytes back, a table shows them escaped.
    make_output_safe(errors=BYTES_OR_ESCAPES if format == "csv" else "backslashreplace")
    if format == "json":
        return _build_json_writer(classes, faces=faces)
    return _build_csv_writer(classes, faces=faces) if format == "csv" else _build_table_writer(classes, faces=faces)


def _build_table_writer(classes: tuple[str, ...], *, faces: bool) -> Writer:
    # The name comes last: no name is too long for its column, and rows can be written before all names are known.
    width = max(map(len, (*classes, _UNCERTAIN, _NO_FACE, "label")))
    box_head = f"{'left,top,right,bottom':21}  " if faces else ""
    header = f"{'label':{width}}  probability  {box_head}name"

    def write(prediction: Prediction, label: str) -> None:
        nonlocal header
        if prediction.error:
            return  # told on standard error
        if header:
            print(header)
            header = ""
        prob = f"{prediction.prob:.4f}" if prediction.probs else ""
        box = f"{','.join(map(str, prediction.box or ())):21}  " if faces else ""
        print(f"{printable(label or _NO_FACE):{width}}  {prob:>11}  {box}{printable(prediction.name)}")

    return write


def _build_json_writer(classes: tuple[str, ...], *, faces: bool) -> Writer:
    def write(prediction: Prediction, label: str) -> None:
        row: dict[str, Any] = {"name": prediction.name}
        if prediction.error:
            row["error"] = prediction.error
        elif prediction.probs:
            probs = {name: round(prob, 6) for name, prob in zip(classes, prediction.probs, strict=True)}
            row |= {"label": label, "prob": round(prediction.prob, 6), "probs": probs}
        else:
            row["label"] = None
        if faces and not prediction.error:
            row["box"] = prediction.box
        print(json.dumps(row))

    return write


def _build_csv_writer(classes: tuple[str, ...], *, faces: bool) -> Writer:
    from gender_classifier.common.files import build_csv_writer
    from gender_classifier.common.spreadsheet import escape_row

    writer = build_csv_writer(sys.stdout)
    show = printable if sys.stdout.isatty() else str  # a file keeps every byte of a name, a terminal would obey some
    edges = ["left", "top", "right", "bottom"] if faces else []
    writer.writerow(["name", "label", "prob", *(f"prob_{name}" for name in classes), *edges, "error"])

    def write(prediction: Prediction, label: str) -> None:
        probs = [f"{prob:.6f}" for prob in prediction.probs] or [""] * len(classes)
        prob = f"{prediction.prob:.6f}" if prediction.probs else ""
        box = (prediction.box or [""] * 4) if faces else ()
        writer.writerow(escape_row([show(prediction.name), label, prob, *probs, *box, show(prediction.error)]))

    return write


def _complain(prediction: Prediction) -> None:
    print(f"gender-classifier predict: {printable(prediction.name)}: {printable(prediction.error)}", file=sys.stderr)


def _show_progress(predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Count on standard error where a person sees it and the rows go elsewhere: rows are progress enough."""
    if not sys.stderr.isatty() or sys.stdout.isatty():
        yield from predictions
        return
    try:
        from tqdm import tqdm
    except ImportError:  # the model in use needs no more than onnxruntime, Pillow and NumPy
        yield from predictions
        return
    # Nothing appears on work of less than a second.
    with tqdm(predictions, unit=" images", delay=1, dynamic_ncols=True) as shown:
        yield from shown

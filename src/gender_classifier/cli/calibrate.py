"""The subcommand ``gender-classifier calibrate``."""

import argparse
from pathlib import Path

from gender_classifier.cli.options import add_max_pixels_option, add_model_option, add_output_argument, check_output
from gender_classifier.errors import needs_extra

_DESCRIPTION = """\
Write a copy of the model whose temperature and bias are fitted to labelled images of your own (Platt scaling), and
report what that changes on images that a fit has not seen (cross-validation).

SET is a folder or zip with a folder for each class, or a CSV file with the columns path and label. With a column
group, such as a person's number, images of one group are never on both sides of the cross-validation. About 200 images
are enough; at least 20 of each class are needed.
"""


def add_calibrate_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``calibrate`` to the subcommands."""
    parser = commands.add_parser(
        "calibrate",
        help="write a variant of the model that is fitted to some 200 labelled images of your own",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_output_argument(parser)
    parser.add_argument("labelled", metavar="SET", help="folder, .zip or .csv of labelled images")
    add_model_option(parser)
    add_max_pixels_option(parser)
    parser.set_defaults(run=run_calibrate)


def run_calibrate(options: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        GenderClassifierError: the model cannot be loaded, the images cannot be used, or the output exists.
    """
    with needs_extra("calibrate"):
        from gender_classifier.predict.calibration import fit_calibration, write_calibrated
    from gender_classifier.cli.reporting import report_unreadable
    from gender_classifier.common.terminal import complain
    from gender_classifier.data.labelled_files import open_source
    from gender_classifier.data.labelled_pixels import Reading, list_unreadable
    from gender_classifier.data.layouts.class_folders import Rules
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.track.model_source import find_model

    output: Path = options.output
    check_output(output, "labelled images")
    with find_model(options.model, Path.cwd()) as model:
        predictor = Predictor(model.path, max_pixels=options.max_pixels)
        rules = Rules(
            name="SET",
            classes={label: (label,) for label in predictor.classes},
            fixed=True,
            refuses_strays=True,
            refuses_unreadable=False,
            if_missing="check the path",
        )
        reading = Reading()
        with open_source(options.labelled, rules) as labelled:
            calibration = fit_calibration(model.path, predictor, labelled, reading)
            if unreadable := list_unreadable(labelled, reading):
                report_unreadable("calibrate", "left out, cannot be read", unreadable)
        write_calibrated(model.path, output, calibration)
    rows = [("", "before", "after, cross-validated", "change")]
    for name, figure in calibration.figures.items():
        cells = (_format(figure.before), _format(figure.after), _format(figure.change, "+"))
        rows.append((name.replace("_", " ", 1), *cells))  # the name of a class may have more
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    total = sum(calibration.counts)
    counts = ", ".join(f"{count} {name}" for name, count in zip(predictor.classes, calibration.counts, strict=True))
    scaling = calibration.scaling
    bias = ", ".join(f"{value:+.2f} {name}" for name, value in zip(predictor.classes, scaling.bias, strict=True))
    groups = f" of {calibration.groups} groups" if calibration.groups else ""
    print(
        f"{output}: calibrated on {total} images{groups} ({counts}): temperature "
        f"{scaling.temperature:.2f}, bias {bias}"
        + _describe_earlier(predictor.metadata.get("calibration"), calibration.digest)
    )
    if calibration.unfamiliar is not None and 2 * calibration.unfamiliar > total:
        complain(
            "gender-classifier calibrate",
            f"{options.labelled}: {calibration.unfamiliar} of {total} images are unfamiliar to the model; calibration "
            "corrects shifted probabilities, not images of another kind: crop them like its training images, or train "
            "on them",
            kind="warning",
        )
    if not calibration.figures["loss"].falls:  # the fit minimises it
        kept = options.model or model.path
        is_worse = calibration.figures["loss"].change[1] > 0  # the whole interval
        found = "no gain in log loss on these images that can be told from chance"
        print(f"{output}: {'a higher log loss on these images' if is_worse else found}; keep {kept}")


def _describe_earlier(text: str | None, digest: str) -> str:
    if text is None:
        return ""
    same = ", which was fitted to these very images: the figures before are too good" if digest in text else ""
    return f"; this replaces the earlier calibration{same}"


def _format(figure: tuple[float, float, float], sign: str = "") -> str:
    value, low, high = figure
    return f"{value:{sign}.4f} ({low:{sign}.4f} to {high:{sign}.4f})"

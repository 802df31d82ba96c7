"""Options that several subcommands share."""

import argparse
import os

from gender_classifier.common.logs import LEVEL_VARIABLE
from gender_classifier.predict.limits import MAX_PIXELS, THRESHOLD

DEBUG_VARIABLE = "GENDER_CLASSIFIER_DEBUG"


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug`` and ``--verbose``."""
    parser.add_argument("--debug", action="store_true", help=f"show tracebacks of errors (or set {DEBUG_VARIABLE}=1)")
    parser.add_argument("--verbose", action="store_true", help=f"log more (or set {LEVEL_VARIABLE}=DEBUG)")


def wants_traceback(options: argparse.Namespace | None) -> bool:
    """Whether ``--debug`` or the environment asks for tracebacks."""
    return bool(options is not None and options.debug) or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def add_model_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--model``: a path, or a version in MLflow's registry."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="an ONNX file that evaluate wrote, or a version in MLflow's registry such as "
        "models:/gender-classifier@champion (default: models/model.onnx of this checkout)",
    )


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--threshold``: the probability below which a prediction counts as uncertain."""
    parser.add_argument(
        "--threshold",
        type=parse_probability,
        default=THRESHOLD,
        metavar="P",
        help="a prediction with a lower probability counts as uncertain, 0 to 1 (default: %(default)s)",
    )


def add_max_pixels_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``: the size from which on an image is refused."""
    parser.add_argument(
        "--max-pixels",
        type=parse_count,
        default=MAX_PIXELS,
        metavar="N",
        help="width times height of one image; a larger one is refused (default: %(default)s)",
    )


def parse_count(text: str) -> int:
    """Return a whole number above 0.

    Raises:
        argparse.ArgumentTypeError: it is 0 or less.
    """
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def parse_probability(text: str) -> float:
    """Return a number from 0 to 1.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a probability from 0 to 1")
    return value

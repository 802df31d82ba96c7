"""Command-line options that several subcommands share."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gender_classifier.errors import InputError
from gender_classifier.predict.limits import MAX_PIXELS, THRESHOLD


def add_model_option(parser: argparse.ArgumentParser, *, takes_int8: bool = True) -> None:
    """Add ``--model``: a path, the shipped model if it ``takes_int8``, or a version in MLflow's registry."""
    pretrained = (
        "`pretrained` for the model that this package ships" if takes_int8 else "not `pretrained`, an int8 model"
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"an ONNX file written by evaluate; {pretrained}; or a version in MLflow's registry such as "
        "models:/gender-classifier@champion (default: models/model.onnx of this checkout)",
    )


def add_output_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``OUTPUT``: the model file to write; see :func:`check_output`."""
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="the ONNX file to write; it must not exist")


def check_output(path: Path, inputs: str) -> None:
    """Refuse a model file to write that is there, such as the first of ``inputs`` where the user forgot the output.

    Raises:
        InputError: ``path`` exists, cannot be made, or does not end in ``.onnx``.
    """
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the ONNX file to write first, then the {inputs}")
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: does not end in .onnx; give the ONNX file to write first, then the {inputs}")
    if path.exists() or path.is_symlink():
        raise InputError(f"{path}: exists; remove it, or name another file (the model itself is never changed)")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it, or name another file")
    if not os.access(path.absolute().parent, os.W_OK):
        raise InputError(f"{path}: cannot be written, the folder {path.parent} is read-only; name another file")


def add_threshold_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--threshold``: the probability below which a prediction counts as uncertain."""
    parser.add_argument(
        "--threshold",
        type=number(float, lambda value: 0 <= value <= 1, "a probability from 0 to 1"),
        default=THRESHOLD,
        metavar="P",
        help="predictions with a lower probability count as uncertain, 0 to 1 (default: %(default)s)",
    )


def add_max_pixels_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--max-pixels``: the limit above which images are rejected."""
    parser.add_argument(
        "--max-pixels",
        type=count,
        default=MAX_PIXELS,
        metavar="N",
        help="width times height of an image; larger images are rejected (default: %(default)s)",
    )


def number(kind: type[Any], is_valid: Callable[[Any], bool], description: str) -> Callable[[str], Any]:
    """Return an argparse type for numbers of ``kind`` that are ``is_valid``; errors give the ``description``."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not is_valid(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return parse


port = number(int, lambda value: 0 <= value <= 65535, "a port from 0 to 65535")
"""An argparse type for ports; 0 is any free one."""

count = number(int, lambda value: value >= 1, "a whole number of at least 1")
"""An argparse type for numbers of things."""

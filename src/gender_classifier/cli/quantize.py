"""The subcommand ``gender-classifier quantize``."""

import argparse
from pathlib import Path

from gender_classifier.cli.options import add_model_option, add_output_argument, check_output
from gender_classifier.cli.reporting import report_unreadable
from gender_classifier.errors import InputError, needs_extra

_CALIBRATION, _COMPARED = 256, 4000  # images
_LEAST_AGREEMENT = 0.98  # fraction of predictions


def add_quantize_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add ``quantize`` to the subcommands."""
    parser = commands.add_parser(
        "quantize",
        help="write an int8 variant of the model: a quarter of the size, 1.5 to 2 times as fast",
        description="Write an int8 variant of the model, calibrated on images, and report how far its predictions "
        f"agree with the original's. PATHs are as for `predict`; {_CALIBRATION} images are used for calibration and up "
        f"to {_COMPARED:,} others for the comparison.",
    )
    add_output_argument(parser)
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help=f"images similar to those to be classified, at least {2 * _CALIBRATION}",
    )
    add_model_option(parser, takes_int8=False)
    parser.set_defaults(run=run_quantize)


def run_quantize(options: argparse.Namespace) -> None:
    """Run the subcommand.

    Raises:
        GenderClassifierError: the model cannot be loaded or is int8 already, too few images can be read, or the output
            exists.
    """
    import random
    import sys
    from itertools import islice

    import numpy as np

    from gender_classifier.predict.inputs import find_images
    from gender_classifier.predict.predictor import Predictor, try_load
    from gender_classifier.track.model_source import find_model

    with needs_extra("quantize"):
        from gender_classifier.predict.quantization import quantize_onnx

    check_output(options.output, "images")
    # Each once, also if two PATHs name it. Sampled at random, since folders come sorted, perhaps by class.
    found = list(dict(find_images(options.paths)).items())
    random.Random(0).shuffle(found)
    with find_model(options.model, Path.cwd()) as model:
        original, original_size = Predictor(model.path), model.path.stat().st_size
        if original.metadata.get("precision") == "int8":  # such as the shipped one
            raise InputError(
                f"{options.model or model.path}: is an int8 model already; give a float32 one with --model"
            )
        images = []
        for name, read in islice(found, _CALIBRATION + _COMPARED):
            image = try_load(read, original.prepare)
            if isinstance(image, str):
                report_unreadable("quantize", name, image)
            else:
                images.append(image)
        if len(images) < 2 * _CALIBRATION:
            raise InputError(f"too few images can be read, {len(images)}; give at least {2 * _CALIBRATION}")
        quantize_onnx(model.path, options.output, np.stack(images[:_CALIBRATION]))
    compared = np.stack(images[_CALIBRATION:])
    before, after = original.compute_probs(compared), Predictor(options.output).compute_probs(compared)
    agree, gaps = float((before.argmax(axis=1) == after.argmax(axis=1)).mean()), np.abs(before - after)
    print(
        f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB instead of {original_size / 1e6:.1f} MB; "
        f"{agree:.2%} of {len(compared):,} predictions agree, probabilities differ by {gaps.mean():.4f} on average, "
        f"{gaps.max():.3f} at most"
    )
    if agree < _LEAST_AGREEMENT:
        print(
            f"quantize: {options.output}: fewer than {_LEAST_AGREEMENT:.0%} of the predictions agree; "
            "use the float32 model instead",
            file=sys.stderr,
        )

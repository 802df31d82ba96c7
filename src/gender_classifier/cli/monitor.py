"""The command ``gender-classifier monitor``: what is shown, written and returned; the rest is the library's."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gender_classifier.cli.options import add_model_option
from gender_classifier.common.terminal import make_output_safe, printable

if TYPE_CHECKING:
    from gender_classifier.metrics.histograms import Histogram, Reference
    from gender_classifier.monitor.collect import Tally
    from gender_classifier.monitor.drift import Comparison
    from gender_classifier.predict.predictor import Predictor

DRIFT_STATUS, TOO_FEW_STATUS = 3, 4

_MAX_UNREADABLE = 0.05  # of the images; with more, the figures are of what happened to survive
_MOST_COMPLAINTS = 20  # lines on standard error

_DESCRIPTION = """\
Say whether new images have drifted from those that the model was made with: brightness, contrast, width and height
against train's; share of predicted classes and confidence against val's.

FILE is what `predict` takes: an image, a folder, a .zip archive, a quoted pattern. Or a log of predictions, as
`predict --format csv` or `json` writes it, called .csv, .json, .jsonl or .ndjson; that holds classes and confidence
alone.
"""

_EPILOG = """\
exit status: 0, no drift; 3, drift; 4, no drift seen, but too few images to tell; 1, an error, or more than 5 % of the
images cannot be read; 2 for wrong usage; 130 if interrupted.
"""


def add_monitor_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``monitor`` to the program's commands."""
    parser = commands.add_parser(
        "monitor",
        help="compare new images, or a log of predictions, with the training data",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    add_model_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw both distributions of each statistic")
    parser.add_argument(
        "--psi",
        "--threshold",  # the name in earlier versions
        type=_parse_psi,
        default=0.25,
        metavar="PSI",
        help="population stability index that counts as drift (default: 0.25, a large change; 0.1 is a moderate one)",
    )
    parser.set_defaults(run=run_monitor)


def run_monitor(options: argparse.Namespace) -> int:
    """Do what ``options`` say; return the exit status.

    Raises:
        GenderClassifierError: nothing can be compared, or too much cannot be read.
    """
    from gender_classifier.errors import DataError
    from gender_classifier.metrics.histograms import parse_reference
    from gender_classifier.monitor.drift import compare, summarize
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.track.model_source import find_model

    warnings.filterwarnings("ignore", module="PIL")
    make_output_safe()
    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=1)
    reference = parse_reference(predictor.metadata.get("reference"), options.model or "models/model.onnx")
    tally = _tally(options.files, predictor, reference)
    if not tally.num_images:
        raise DataError(f"none of the {tally.num_unreadable} images can be read; nothing to compare")
    comparisons = compare(reference, tally.new, threshold=options.psi)
    verdict = summarize(comparisons)
    _print_report(predictor, reference, tally, comparisons, verdict, options.psi)
    if options.json:
        _write_json(options.json, _describe(predictor, reference, tally, comparisons, verdict, options.psi))
    if options.plot:
        _draw(options.plot, comparisons, reference, tally.new, verdict)
    total = tally.num_images + tally.num_unreadable
    if tally.num_unreadable > _MAX_UNREADABLE * total:
        raise DataError(
            f"{tally.num_unreadable:,} of {total:,} images cannot be read ({tally.num_unreadable / total:.1%}), more "
            f"than {_MAX_UNREADABLE:.0%}: the comparison is of the rest; check what delivers them"
        )
    return {"drift": DRIFT_STATUS, "too few": TOO_FEW_STATUS}.get(verdict, 0)


def _tally(files: Sequence[str], predictor: Predictor, reference: Reference) -> Tally:
    from gender_classifier.errors import InputError
    from gender_classifier.monitor.collect import LOG_SUFFIXES, tally_logs, tally_pictures
    from gender_classifier.predict.inputs import find_pictures

    logs = [Path(name) for name in files if name.lower().endswith(LOG_SUFFIXES) and not Path(name).is_dir()]
    if logs and len(logs) < len(files):
        raise InputError("logs of predictions beside images; compare the ones and the others in runs of their own")
    with _show_progress() as on_images:
        complain = _complainer()
        if logs:
            return tally_logs(logs, predictor.classes, reference, on_unreadable=complain, on_images=on_images)
        sources = find_pictures(files)
        return tally_pictures(predictor, sources, reference, on_unreadable=complain, on_images=on_images)


def _complainer() -> Callable[[str, str], None]:
    count = 0

    def complain(name: str, reason: str) -> None:
        nonlocal count
        count += 1
        if count <= _MOST_COMPLAINTS:
            print(printable(f"gender-classifier monitor: {name}: {reason}"), file=sys.stderr)
        elif count == _MOST_COMPLAINTS + 1:
            print("gender-classifier monitor: further ones are counted only", file=sys.stderr)

    return complain


@contextmanager
def _show_progress() -> Iterator[Callable[[int], object]]:
    try:
        from tqdm import tqdm
    except ImportError:  # the model in use needs no more than onnxruntime, Pillow and NumPy
        yield lambda _: None
        return
    with tqdm(unit=" images", desc="monitor", disable=None, delay=1, dynamic_ncols=True) as bar:
        yield bar.update


def _print_report(
    predictor: Predictor,
    reference: Reference,
    tally: Tally,
    comparisons: Sequence[Comparison],
    verdict: str,
    threshold: float,
) -> None:
    digest = printable(predictor.metadata.get("data_digest", "unknown"))
    unreadable = f", {tally.num_unreadable:,} more unreadable" if tally.num_unreadable else ""
    print(f"{tally.num_images:,} images{unreadable}, against training data {digest}\n")
    rows = [("statistic", "reference", "", "new", "PSI", "KS", "p", "verdict")]
    rows += [
        (
            one.name,
            printable(one.split),
            summarize_histogram(one.name, reference[one.name]),
            summarize_histogram(one.name, tally.new[one.name]),
            f"{one.psi:.3f}",
            f"{one.ks:.3f}",
            f"{one.p_value:.4f}" if one.p_value >= 0.0001 else "<0.0001",
            one.verdict,
        )
        for one in comparisons
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    absent = [name for name in reference if name not in {one.name for one in comparisons}]
    if absent:
        print(f"\nnot in a log of predictions: {', '.join(absent)}")
    print("\nnumbers: median (5 % to 95 % of the images); PSI: 0.1 a moderate change, 0.25 a large one")
    print(_conclude(comparisons, verdict, threshold))


def summarize_histogram(name: str, histogram: Histogram) -> str:
    """Return a distribution in a few words: the median and the span of nine tenths, or each class's share."""
    if histogram.categories:
        shares = histogram.counts / histogram.total
        return ", ".join(
            f"{share:.1%} {printable(one)}" for one, share in zip(histogram.categories, shares, strict=True)
        )
    digits = 0 if name in ("width", "height") else 3
    low, middle, high = (f"{histogram.quantile(share):.{digits}f}" for share in (0.05, 0.5, 0.95))
    return f"{middle} ({low} to {high})" + (" px" if not digits else "")


def _conclude(comparisons: Sequence[Comparison], verdict: str, threshold: float) -> str:
    names = ", ".join(one.name for one in comparisons if one.verdict == verdict)
    return {
        "drift": f"DRIFT: {names} (PSI of {threshold:g} or more, and not by chance)",
        "too few": f"TOO FEW IMAGES to tell: {names}; no drift is seen, and none ruled out",
        "moderate": f"no drift; a moderate change: {names}",
        "stable": "no drift",
    }[verdict]


def _describe(
    predictor: Predictor,
    reference: Reference,
    tally: Tally,
    comparisons: Sequence[Comparison],
    verdict: str,
    threshold: float,
) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "num_images": tally.num_images,
        "num_unreadable": tally.num_unreadable,
        "threshold": threshold,
        "model_version": predictor.metadata.get("version"),
        "data_digest": predictor.metadata.get("data_digest"),
        "statistics": [
            asdict(one)
            | {"reference": _figures(one.name, reference[one.name]), "new": _figures(one.name, tally.new[one.name])}
            for one in comparisons
        ],
    }


def _figures(name: str, histogram: Histogram) -> dict[str, float]:
    if histogram.categories:
        shares = (histogram.counts / histogram.total).tolist()
        return dict(zip(histogram.categories, shares, strict=True))
    found = {key: histogram.quantile(share) for key, share in (("p05", 0.05), ("median", 0.5), ("p95", 0.95))}
    return {key: round(value) for key, value in found.items()} if name in ("width", "height") else found


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    from gender_classifier.common.files import write_json
    from gender_classifier.errors import InputError

    try:
        write_json(path, value)
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written ({error.strerror or error}); give another path") from None


def _draw(path: Path, comparisons: Sequence[Comparison], reference: Reference, new: Reference, verdict: str) -> None:
    from gender_classifier.errors import InputError
    from gender_classifier.metrics.histograms import UNITS

    try:
        from gender_classifier.common.figures import save_figure
        from gender_classifier.monitor.figures import Panel, compare_histograms
    except ImportError as error:
        raise InputError(f"--plot {path}: needs {error.name}; install the project, or leave --plot out") from None
    panels = [
        Panel(
            title=f"{one.name}: {one.verdict}\nPSI {one.psi:.3f}, KS {one.ks:.3f}",
            unit=UNITS[one.name],
            edges=reference[one.name].edges,
            categories=reference[one.name].categories,
            counts={one.split: reference[one.name].counts, "new": new[one.name].counts},
        )
        for one in comparisons
    ]
    try:
        figure = compare_histograms(panels, f"New images against the training data: {verdict}")
        save_figure(figure, path)
    except OSError as error:
        raise InputError(f"--plot {path}: cannot be written ({error.strerror or error}); give another path") from None


def _parse_psi(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 < value <= 10:
        raise argparse.ArgumentTypeError(f"{text!r} is no index above 0, up to 10")
    return value

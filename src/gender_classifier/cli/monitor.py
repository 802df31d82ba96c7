"""The subcommand ``gender-classifier monitor``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gender_classifier.cli.options import add_model_option, number
from gender_classifier.cli.reporting import report_unreadable, show_progress
from gender_classifier.common.terminal import printable
from gender_classifier.errors import needs_extra

if TYPE_CHECKING:
    from gender_classifier.metrics.histograms import Histogram, Reference
    from gender_classifier.monitor.collect import Tally
    from gender_classifier.monitor.drift import Comparison
    from gender_classifier.predict.predictor import Predictor

DRIFT_STATUS, TOO_FEW_STATUS = 3, 4
_RECOMMENDED = 300  # images; docs/monitoring.md says why

_MAX_UNREADABLE = 0.05  # of the images; with more, the comparison would be of a biased rest
# How files of earlier comparisons begin, or what is among their first bytes.
_JSON_MARK, _PNG_TITLE = b'{\n  "verdict": ', "gender-classifier monitor"
_HEAD = 256  # bytes

_MAX_REPORTED = 20  # unreadable images named on standard error

_DESCRIPTION = """\
Check whether new images have drifted from those the model was trained on: brightness, contrast, width and height are
compared with the train split; predicted classes, confidence and the share of unfamiliar images with the val split.

FILE is as for `predict`: an image, a folder, a .zip archive, a quoted pattern. Or a log of predictions, as written by
`predict --format csv` or `json`, with the suffix .csv, .json, .jsonl or .ndjson; it holds the last three only.
"""

_EPILOG = """\
exit status: 0, no drift; 3, drift; 4, no drift detected, but too few images to tell; 1, an error, or more than 5 % of
the images cannot be read; 2 for wrong usage; 130 if interrupted.
"""


def add_monitor_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``monitor`` to the subcommands."""
    parser = commands.add_parser(
        "monitor",
        help="compare new images, or a log of predictions, with the training data",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    add_model_option(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparison to this file")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw both distributions of each statistic")
    parser.add_argument(
        "--psi",
        "--threshold",  # the name in earlier versions
        type=number(float, lambda value: 0 < value <= 10, "an index above 0, up to 10"),
        default=0.25,
        metavar="PSI",
        help="population stability index that counts as drift (default: 0.25, a large change; 0.1 is a moderate one)",
    )
    parser.set_defaults(run=run_monitor)


@dataclass(frozen=True)
class _Report:
    """A comparison and what it was made of."""

    predictor: Predictor
    reference: Reference
    tally: Tally
    threshold: float
    comparisons: Sequence[Comparison]
    verdict: str


def run_monitor(options: argparse.Namespace) -> int:
    """Run the subcommand and return its exit status.

    Raises:
        GenderClassifierError: there is nothing to compare, or too many images cannot be read.
    """
    from gender_classifier.errors import DataError
    from gender_classifier.metrics.histograms import parse_reference
    from gender_classifier.monitor.drift import compare, summarize
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.track.model_source import find_model

    _check_outputs(options)
    if options.plot:
        with needs_extra("plot"):
            import gender_classifier.monitor.figures  # noqa: F401  fails now, not after all images are read
    with find_model(options.model, Path.cwd()) as found:
        predictor = Predictor(found.path, threads=1)
    reference = parse_reference(predictor.metadata.get("reference"), options.model or "models/model.onnx")
    tally = _tally(options.files, predictor, reference)
    if not tally.num_images:
        unreadable = f"; {tally.num_unreadable:,} not read (see above)" if tally.num_unreadable else ""
        files = options.files[0] + (f" and {len(options.files) - 1} more" if len(options.files) > 1 else "")
        raise DataError(f"{files}: there is no image to compare{unreadable}")
    comparisons = compare(reference, tally.new, threshold=options.psi)
    report = _Report(predictor, reference, tally, options.psi, comparisons, summarize(comparisons))
    _print_report(report)
    if options.json:
        _write_json(options.json, report)
    if options.plot:
        _draw(options.plot, report)
    total = tally.num_images + tally.num_unreadable
    if tally.num_unreadable > _MAX_UNREADABLE * total:
        raise DataError(
            f"{tally.num_unreadable:,} of {total:,} images cannot be read ({tally.num_unreadable / total:.1%}), more "
            f"than {_MAX_UNREADABLE:.0%}: the comparison is of the rest; check what delivers them"
        )
    return {"drift": DRIFT_STATUS, "too few": TOO_FEW_STATUS}.get(report.verdict, 0)


def _check_outputs(options: argparse.Namespace) -> None:
    from gender_classifier.errors import InputError

    _check_output("--json", options.json, _JSON_MARK, options.files)
    _check_output("--plot", options.plot, f"tEXtTitle\0{_PNG_TITLE}".encode(), options.files)
    if options.plot and options.plot.suffix.lower() != ".png":
        raise InputError(f"--plot {options.plot}: does not end in .png; only PNG is written")
    if options.json and options.plot and options.json.absolute() == options.plot.absolute():
        raise InputError(f"--plot {options.plot}: is the file of --json, too; give another path")


def _check_output(option: str, path: Path | None, mark: bytes, files: Sequence[str]) -> None:
    """Refuse to replace what no earlier comparison has written: a device, an image that is to be read, another file."""
    from gender_classifier.errors import InputError

    if path is None or not (path.exists() or path.is_symlink()):
        return
    if path.is_symlink() or not path.is_file() or any(os.path.exists(file) and path.samefile(file) for file in files):  # noqa: PTH110
        raise InputError(f"{option} {path}: is no regular file, or one of those to compare; give another path")
    with path.open("rb") as file:
        if (head := file.read(_HEAD)) and mark not in head:
            raise InputError(f"{option} {path}: exists and is no earlier comparison; remove it, or give another path")


def _tally(files: Sequence[str], predictor: Predictor, reference: Reference) -> Tally:
    from gender_classifier.errors import InputError
    from gender_classifier.monitor.collect import LOG_SUFFIXES, Tally, measure_images, read_logs
    from gender_classifier.predict.inputs import find_images

    logs = [Path(name) for name in files if name.lower().endswith(LOG_SUFFIXES) and not Path(name).is_dir()]
    if logs and len(logs) < len(files):
        raise InputError("logs of predictions beside images; compare them in separate runs")
    batches = read_logs(logs, predictor.classes) if logs else measure_images(predictor, find_images(files))
    tally = Tally({name: histogram.like() for name, histogram in reference.items()})
    with show_progress() as advance:
        for batch in batches:
            for number, (name, reason) in enumerate(batch.unreadable, tally.num_unreadable + 1):
                if number <= _MAX_REPORTED:
                    report_unreadable("monitor", name, reason)
                elif number == _MAX_REPORTED + 1:
                    report_unreadable("monitor", "more images cannot be read", "they are only counted")
            tally.add(batch)
            advance(batch.num_images + len(batch.unreadable))
    return tally


def _print_report(report: _Report) -> None:
    reference, tally = report.reference, report.tally
    digest = printable(report.predictor.metadata.get("data_digest", "unknown"))
    unreadable = f", {tally.num_unreadable:,} more unreadable" if tally.num_unreadable else ""
    print(f"{tally.num_images:,} images{unreadable}, against training data {digest}\n")
    rows = [("statistic", "reference", "", "new", "PSI", "KS", "p", "verdict")]
    rows += [
        (
            found.name,
            printable(found.split),
            _format_histogram(found.name, reference[found.name]),
            _format_histogram(found.name, tally.new[found.name]),
            f"{found.psi:.3f}",
            f"{found.ks:.3f}",
            f"{found.p_value:.4f}" if found.p_value >= 0.0001 else "<0.0001",
            found.verdict,
        )
        for found in report.comparisons
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    absent = [name for name in reference if name not in {found.name for found in report.comparisons}]
    if absent:
        print(f"\nnot in a log of predictions: {', '.join(absent)}")
    print("\nnumbers: median (5 % to 95 % of the images); PSI: 0.1 a moderate change, 0.25 a large one")
    print(_conclude(report))


def _format_histogram(name: str, histogram: Histogram) -> str:
    """Return a distribution's median and 90 % range, or each class's share."""
    summary = _summarize(name, histogram)
    if histogram.categories:
        return ", ".join(f"{share:.1%} {printable(category)}" for category, share in summary.items())
    digits, unit = (0, " px") if name in ("width", "height") else (3, "")
    return f"{summary['median']:.{digits}f} ({summary['p05']:.{digits}f} to {summary['p95']:.{digits}f}){unit}"


def _conclude(report: _Report) -> str:
    names = ", ".join(found.name for found in report.comparisons if found.verdict == report.verdict)
    count = report.tally.num_images
    few = f", of {count} images only: use at least {_RECOMMENDED}" if count < _RECOMMENDED else ""
    return {
        "drift": f"DRIFT: {names} (PSI of {report.threshold:g} or more, and not by chance{few})",
        "too few": f"TOO FEW IMAGES to tell: {names}; no drift is seen, and none ruled out",
        "moderate": f"no drift; a moderate change: {names}",
        "stable": "no drift",
    }[report.verdict]


def _summarize(name: str, histogram: Histogram) -> dict[str, float]:
    if histogram.categories:
        shares = (histogram.counts / histogram.total).tolist()
        return dict(zip(histogram.categories, shares, strict=True))
    found = {key: histogram.quantile(share) for key, share in (("p05", 0.05), ("median", 0.5), ("p95", 0.95))}
    return {key: round(value) for key, value in found.items()} if name in ("width", "height") else found


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    """Turn an OSError into an InputError that names the option."""
    from gender_classifier.errors import InputError

    try:
        yield
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{option} {path}: cannot be written ({reason}); give another path") from None


def _write_json(path: Path, report: _Report) -> None:
    from gender_classifier.common.files import write_json

    new, metadata = report.tally.new, report.predictor.metadata
    value: dict[str, Any] = {
        "verdict": report.verdict,
        "num_images": report.tally.num_images,
        "num_unreadable": report.tally.num_unreadable,
        "threshold": report.threshold,
        "model_version": metadata.get("version"),
        "data_digest": metadata.get("data_digest"),
        "statistics": [
            asdict(found)
            | {
                "reference": _summarize(found.name, report.reference[found.name]),
                "new": _summarize(found.name, new[found.name]),
            }
            for found in report.comparisons
        ],
    }
    with _writing("--json", path):
        write_json(path, value)


def _draw(path: Path, report: _Report) -> None:
    from gender_classifier.common.figures import save_figure
    from gender_classifier.metrics.histograms import UNITS
    from gender_classifier.monitor.figures import Panel, compare_histograms

    panels = [
        Panel(
            title=f"{found.name}: {found.verdict}\nPSI {found.psi:.3f}, KS {found.ks:.3f}",
            unit=UNITS[found.name],
            edges=report.reference[found.name].edges,
            categories=report.reference[found.name].categories,
            counts={found.split: report.reference[found.name].counts, "new": report.tally.new[found.name].counts},
        )
        for found in report.comparisons
    ]
    with _writing("--plot", path):
        figure = compare_histograms(panels, f"New images against the training data: {report.verdict}")
        save_figure(figure, path, title=_PNG_TITLE)

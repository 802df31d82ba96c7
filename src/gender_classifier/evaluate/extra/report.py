"""The labelled sets in ``evaluate.extra``: found, measured, and described as files and figures."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from gender_classifier.common.artifacts import Artifact, Table
from gender_classifier.common.figures import confusion_matrix
from gender_classifier.common.progress import show_progress
from gender_classifier.common.terminal import printable
from gender_classifier.data.labelled_pixels import list_unreadable
from gender_classifier.evaluate.extra.attributes import attribute_columns, flatten_row
from gender_classifier.evaluate.extra.groups import AttributeReport, name_group
from gender_classifier.evaluate.extra.sets import (
    ScoredSet,
    describe_set,
    extra_columns,
    list_predictions,
    open_labelled_set,
    score_set,
)
from gender_classifier.evaluate.figures import attribute_table, group_table
from gender_classifier.evaluate.inputs import Inputs, find_crop, find_scorer
from gender_classifier.evaluate.unfamiliar.shares import SHARE
from gender_classifier.model.inference import compute_logits

_logger = logging.getLogger(__name__)


def locate_sets(extra: Mapping[str, str], base_dir: Path, classes: Sequence[str]) -> dict[str, str]:
    """Return the path of each set, and open it once: a wrong path stops the stage before minutes of work.

    Args:
        extra: names with paths, as in ``params.yaml``.
        base_dir: what a relative path is relative to.
        classes: that the sets may have.

    Raises:
        GenderClassifierError: a set is missing, or is not laid out as a labelled set.
    """
    # os.path keeps the `/.` that names the data set at the top.
    paths = {name: os.path.join(base_dir, os.path.expanduser(path)) for name, path in extra.items()}  # noqa: PTH111, PTH118
    for name, path in paths.items():
        with open_labelled_set(name, path, classes):
            pass
    return paths


def measure_sets(inputs: Inputs, sets: Mapping[str, str], num_bins: int, max_pixels: int) -> dict[str, ScoredSet]:
    """Measure the model on each set, and print a line about it.

    Args:
        inputs: the model, and the images that it was trained on or chosen by: these are left out.
        sets: from :func:`locate_sets`.
        num_bins: of the calibration error.
        max_pixels: larger images count as unreadable.
    """
    found = {}
    scorer = find_scorer(inputs)
    for name, path in sets.items():
        with (
            open_labelled_set(name, path, inputs.spec.classes) as labelled,
            show_progress(total=len(labelled.images), name=name) as bar,
        ):
            scored = score_set(
                labelled,
                lambda pixels: compute_logits(inputs.model, inputs.spec, pixels) / inputs.spec.temperature,
                inputs.spec.classes,
                size=inputs.spec.image_size,
                max_pixels=max_pixels,
                seen=inputs.seen,
                num_bins=num_bins,
                scorer=scorer,
                crop=find_crop(inputs.info),
                on_images=bar.update,
            )
        print(
            f"evaluate: {printable(name)}: accuracy {scored.report.metrics['accuracy']:.4f} on {len(scored.rows):,} of "
            f"{len(labelled.images):,} images"
        )
        scored.report.metrics.update(scored.by_attribute.groups.metrics)
        if scored.unfamiliar is not None:
            scored.report.metrics[SHARE] = float(scored.unfamiliar.mean())
        if unreadable := list_unreadable(labelled, scored.reading):
            _logger.warning("%s: cannot be read: %s", name, unreadable)
        found[name] = scored
    return found


def describe_extra(
    scored: Mapping[str, ScoredSet], paths: Mapping[str, str], classes: Sequence[str]
) -> Iterator[Artifact]:
    """Yield the report, the tables and the figures of the sets; without sets, an empty report and empty tables."""
    yield Artifact(
        "metrics/extra.json",
        {name: describe_set(found, paths[name], classes) for name, found in scored.items()},
        "metrics",
    )
    table = [[name, *flatten_row(row)] for name, found in scored.items() for row in found.by_attribute.list_rows()]
    yield Artifact("metrics/extra_attributes.csv", Table(["set", *attribute_columns(classes)], table), "metrics")
    predictions = [[name, *row] for name, found in scored.items() for row in list_predictions(found, classes)]
    yield Artifact("data/predictions/extra.csv", Table(["set", *extra_columns(classes)], predictions), "predictions")
    for name, found in scored.items():
        matrix = confusion_matrix(found.report.confusion, classes, f"Further set {name}", found.report.interval)
        yield Artifact(f"metrics/figures/evaluate/extra_{name}_confusion.png", matrix, "")
        yield from draw_attributes(f"extra_{name}", found.by_attribute, classes, f"Further set {name}")


def draw_attributes(prefix: str, found: AttributeReport, classes: Sequence[str], title: str) -> Iterator[Artifact]:
    """Yield the figures of the attributes and of the groups, those that there are; ``prefix`` begins their names."""
    if len(found.rows) > 1:
        figure = attribute_table([asdict(row) for row in found.rows], classes, title)
        yield Artifact(f"metrics/figures/evaluate/{prefix}_attributes.png", figure, "")
    if found.groups.best is not None:
        figure = group_table([asdict(row) for row in found.groups.rows], title, found.groups.gap)
        yield Artifact(f"metrics/figures/evaluate/{prefix}_groups.png", figure, "")


def tag_groups(reports: Mapping[str, AttributeReport]) -> dict[str, str]:
    """Return the names of the worst and the best group as tags: the keys of metrics must not depend on data.

    Args:
        reports: by what the tags begin with, such as ``test`` or ``extra.NAME``.
    """
    tags = {}
    for prefix, found in reports.items():
        if found.groups.best is not None:
            tags[f"{prefix}.worst_group"] = name_group(found.groups.rows[0])
            tags[f"{prefix}.best_group"] = name_group(found.groups.best)
    return tags

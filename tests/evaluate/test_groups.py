"""Groups of a labelled set: which are measured, the worst and its gap, intervals that hold."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gender_classifier.common.figures import save_figure
from gender_classifier.data.labelled_files import LabelledImage
from gender_classifier.data.labelled_pixels import Reading
from gender_classifier.evaluate.extra.report import describe_extra, draw_attributes, tag_groups
from gender_classifier.evaluate.extra.sets import ScoredSet
from gender_classifier.metrics.scores import balanced_interval, evaluate, select_headlines, wilson_interval

CLASSES = ("female", "male")


def build_set(groups: dict[tuple[str, ...], tuple[int, int, int, int]], attributes: tuple[str, ...]) -> ScoredSet:
    """Return a scored set.

    Args:
        groups: values of the attributes to images right and all images of female, then of male.
        attributes: names.
    """
    images, labels, right = list[LabelledImage](), list[int](), list[bool]()
    for values, (*counts,) in groups.items():
        for label in (0, 1):
            hits, total = counts[2 * label : 2 * label + 2]
            for number in range(total):
                images.append(
                    LabelledImage(f"{len(images)}.png", f"{len(images)}.png", label, "", "", values, lambda: b"")
                )
                labels.append(label)
                right.append(number < hits)
    targets = np.array(labels)
    logits = np.eye(2)[np.where(right, targets, 1 - targets)] * 3
    labelled: Any = SimpleNamespace(name="abroad", images=images, attributes=attributes, ignored=0, left_out=())
    rows = np.arange(len(images))
    reading = Reading(["ok"] * len(images))
    return ScoredSet(labelled, reading, rows, targets, evaluate(logits, targets, classes=CLASSES))


PEOPLE = {
    ("20-39", "north"): (48, 50, 49, 50),
    ("20-39", "south"): (30, 50, 45, 50),
    ("60+", "north"): (35, 40, 8, 10),
    ("60+", "south"): (20, 45, 4, 9),  # nine men are too few
    ("0-9", "south"): (10, 20, 20, 29),  # one image is missing
}


def test_large_groups_are_measured_and_the_others_counted() -> None:
    found = build_set(PEOPLE, ("age", "origin")).by_attribute.groups
    assert [(row.attribute, row.value, row.n) for row in found.rows] == [
        ("age × origin", "20-39 × south", 100), ("age × origin", "60+ × north", 50), ("age × origin", "20-39 × north", 100)
    ]  # fmt: skip
    assert [row.balanced_accuracy for row in found.rows] == pytest.approx([0.75, 0.8375, 0.97])
    assert (found.small, found.small_images) == (2, 54 + 49)
    assert found.best == found.rows[-1]
    assert found.describe()["worst"] == "age × origin: 20-39 × south"
    worst = found.rows[0]
    assert (worst.balanced_accuracy_low, worst.balanced_accuracy_high) == balanced_interval([30, 45], [50, 50])


def test_the_gap_of_the_worst_group_and_its_interval_are_headlines() -> None:
    found = build_set(PEOPLE, ("age", "origin")).by_attribute.groups
    gap, low, high = found.gap
    assert gap == pytest.approx(0.97 - 0.75)
    # Of two independent binomial shares a side: the normal approximation.
    variance = sum(share * (1 - share) / 50 for share in (0.6, 0.9, 0.96, 0.98)) / 4
    assert (low, high) == pytest.approx((gap - 1.96 * variance**0.5, gap + 1.96 * variance**0.5), abs=0.015)
    assert build_set(PEOPLE, ("age", "origin")).by_attribute.groups == found  # seeded
    assert select_headlines(found.metrics) == {
        "worst_group_balanced_accuracy": 0.75, "group_gap": gap, "group_gap_low": low, "group_gap_high": high
    }  # fmt: skip


@pytest.mark.parametrize(
    ("groups", "attributes", "measured"),
    [
        ({(): (90, 100, 80, 100)}, (), 0),
        ({("a",): (9, 10, 8, 10), ("b",): (90, 100, 80, 100)}, ("age",), 1),
        ({("a", "x"): (4, 9, 4, 60), ("b", "y"): (4, 9, 4, 60)}, ("age", "origin"), 0),
    ],
)
def test_fewer_than_two_groups_have_no_gap(
    groups: dict[tuple[str, ...], tuple[int, int, int, int]], attributes: tuple[str, ...], measured: int
) -> None:
    scored = build_set(groups, attributes)
    found = scored.by_attribute.groups
    assert len(found.rows) == found.describe()["measured"] == measured
    assert found.metrics == {}
    assert "worst" not in found.describe()
    assert tag_groups({"extra.abroad": scored.by_attribute}) == {}


def test_of_one_attribute_the_groups_are_its_values() -> None:
    found = build_set({("old",): (30, 40, 30, 40), ("young",): (38, 40, 40, 40)}, ("age",)).by_attribute.groups
    assert [row.value for row in found.rows] == ["old", "young"]


def test_best_and_worst_are_of_the_same_two_attributes() -> None:
    """Every pair divides all images, and a gap across pairs would compare overlapping groups."""
    people = {
        ("a", "x", "u"): (50, 50, 50, 50), ("a", "y", "v"): (30, 50, 30, 50), ("b", "x", "v"): (45, 50, 45, 50)
    }  # fmt: skip
    found = build_set(people, ("one", "two", "three")).by_attribute.groups
    assert found.best is not None
    assert found.rows[0].attribute == found.best.attribute
    assert len({row.attribute for row in found.rows}) == 3


def test_groups_are_in_table_report_tags_and_figure(tmp_path: Path) -> None:
    scored = {"abroad": build_set(PEOPLE, ("age", "origin"))}
    found = {one.path: one.content for one in describe_extra(scored, {"abroad": "set.csv"}, CLASSES)}
    table: Any = found["metrics/extra_attributes.csv"]
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [row["attribute"] for row in rows].count("age × origin") == 3
    worst = next(row for row in rows if row["value"] == "20-39 × south")
    assert (worst["n"], worst["balanced_accuracy"], worst["recall_female"]) == (100, "0.750000", "0.600000")
    report: Any = found["metrics/extra.json"]
    assert report["abroad"]["groups"] == {
        "measured": 3, "too_small": 2, "images_in_too_small": 103,
        "worst": "age × origin: 20-39 × south", "best": "age × origin: 20-39 × north",
    }  # fmt: skip
    assert tag_groups({"extra.abroad": scored["abroad"].by_attribute}) == {
        "extra.abroad.worst_group": "age × origin: 20-39 × south",
        "extra.abroad.best_group": "age × origin: 20-39 × north",
    }
    figure: Any = found["metrics/figures/evaluate/extra_abroad_groups.png"]
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["20-39 × south", "60+ × north", "20-39 × north"]
    assert [text.get_text() for text in axes.texts] == ["75.0%  n 100", "83.8%  n 50", "97.0%  n 100"]
    save_figure(figure, tmp_path / "groups.png")


def test_of_many_values_the_figure_shows_the_worst() -> None:
    values = {(f"v{n:02}",): (n, 50, n, 50) for n in range(1, 46)}
    figure: Any = next(draw_attributes("test", build_set(values, ("mark",)).by_attribute, CLASSES, "Test set")).content
    (axes,) = figure.axes
    assert axes.get_title() == "Test set, by attribute, the worst 40 of 45 values (95 % intervals)"
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "all  (n 4,500)", *(f"mark: v{n:02}  (n 100)" for n in range(1, 41))
    ]  # fmt: skip


def test_a_balanced_accuracy_without_a_class_is_empty() -> None:
    scored = build_set({("a",): (5, 6, 0, 0), ("b",): (4, 5, 5, 5)}, ("age",))
    table: Any = next(
        one.content for one in describe_extra({"x": scored}, {"x": ""}, CLASSES) if one.path.endswith("attributes.csv")
    )
    row = dict(zip(table.header, table.rows[1], strict=True))
    assert (row["value"], row["balanced_accuracy"], row["balanced_accuracy_low"]) == ("a", "", "")


def test_the_interval_of_a_balanced_accuracy_covers_it() -> None:
    """Of 2,000 draws of 60 women and 20 men, about 95 % have the true value inside."""
    rng = np.random.default_rng(0)
    shares, totals = np.array([0.75, 0.97]), np.array([60, 20])
    covered = 0
    for hits in rng.binomial(totals, shares, (2000, 2)).tolist():
        low, high = balanced_interval(hits, totals.tolist())
        covered += low <= shares.mean() <= high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)
    assert balanced_interval([7], [9]) == pytest.approx(wilson_interval(7, 9))

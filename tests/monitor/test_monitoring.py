"""Drift: false alarms are rare, real shifts are found, few images are never called stable; and the command around it."""

import contextlib
import csv
import io
import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from conftest import draw_pixels, encode, picture
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from scipy.stats import ks_2samp

from gender_classifier.cli.main import main
from gender_classifier.cli.predict import _choose_writer
from gender_classifier.errors import ModelError
from gender_classifier.evaluate.export import export_onnx
from gender_classifier.metrics.histograms import (
    UNITS,
    Histogram,
    measure_pixels,
    measure_predictions,
    parse_reference,
    start_histogram,
    to_jsonable,
)
from gender_classifier.model.model_file import ModelSpec
from gender_classifier.model.network import build_model
from gender_classifier.model.unfamiliarity import fit_unfamiliarity
from gender_classifier.monitor.collect import read_logs
from gender_classifier.monitor.drift import (
    MIN_IMAGES,
    compare,
    compute_ks,
    compute_p_value,
    compute_psi,
    group_bins,
    judge_effect,
    summarize,
)
from gender_classifier.predict.predictor import Prediction, Predictor

COUNTS = arrays(np.int64, st.integers(2, 20), elements=st.integers(0, 1000)).filter(lambda counts: counts.any())


def fill(name: str, values: np.ndarray, split: str = "train") -> Histogram:
    histogram = start_histogram(name, split, ("female", "male"))
    histogram.add(values)
    return histogram


def draw(seed: int, count: int, shift: float = 0.0) -> dict[str, Histogram]:
    """Draw values as real crops have them; ``shift`` is in deviations."""
    rng = np.random.default_rng(seed)
    return {
        "brightness": fill("brightness", rng.normal(0.53 + 0.1 * shift, 0.1, count)),
        "width": fill("width", rng.normal(83 + 5 * shift, 5, count).round()),
        "confidence": fill("confidence", 1 - rng.beta(0.4 * (1 + shift), 4, count) / 2),
        "class": fill("class", rng.random(count) < 0.5 + 0.25 * shift),
    }


# The statistics themselves


@given(COUNTS, st.data())
def test_the_index_is_never_negative_zero_for_equals_and_symmetric(counts: np.ndarray, data: st.DataObject) -> None:
    others = data.draw(arrays(np.int64, len(counts), elements=st.integers(0, 1000)).filter(lambda one: one.any()))
    psi = compute_psi(counts, others)
    assert psi >= 0
    assert math.isfinite(psi)
    assert compute_psi(counts, counts) == 0
    assert compute_psi(others, counts) == pytest.approx(psi)
    order = data.draw(st.permutations(range(len(counts))))
    assert compute_psi(counts[order], others[order]) == pytest.approx(psi)


def test_the_index_by_hand() -> None:
    # 50:50 to 75:25 of many: 0.25 ln 1.5 - 0.25 ln 0.5
    psi = compute_psi(np.array([10**8, 10**8]), np.array([15 * 10**7, 5 * 10**7]))
    assert psi == pytest.approx(0.25 * math.log(1.5) - 0.25 * math.log(0.5), abs=1e-6)


@given(COUNTS)
def test_groups_cover_all_bins_once_and_hold_about_a_tenth(counts: np.ndarray) -> None:
    groups = group_bins(counts)
    assert groups[0] == 0
    assert (np.diff(groups) > 0).all()
    assert np.add.reduceat(counts, groups).sum() == counts.sum()
    assert len(groups) <= 12
    for first, end in zip(groups, [*groups[1:], len(counts)], strict=True):
        if np.count_nonzero(counts[first:end]) > 1:  # a bin of its own may hold more
            assert counts[first : end - 1].sum() <= counts.sum() / 10 + counts.max()


def test_a_constant_reference_is_left_by_values_on_either_side() -> None:
    reference = {"width": fill("width", np.full(1000, 80))}
    for side in (40, 160):
        assert compare(reference, {"width": fill("width", np.full(200, side))})[0].verdict == "drift"
    assert compare(reference, {"width": fill("width", np.full(200, 80))})[0].verdict == "stable"


@pytest.mark.parametrize(("count", "shift"), [(150, 0.0), (150, 0.3), (2000, 0.1)])
def test_the_test_agrees_with_scipy_on_fine_bins(count: int, shift: float) -> None:
    rng = np.random.default_rng(3)
    old, new = rng.normal(0.5, 0.1, 1000), rng.normal(0.5 + 0.1 * shift, 0.1, count)
    edges = np.linspace(0, 1, 20_001)
    histograms = [Histogram(edges), Histogram(edges)]
    for histogram, values in zip(histograms, (old, new), strict=True):
        histogram.add(values)
    expected = ks_2samp(old, new, method="asymp")
    ks = compute_ks(histograms[0].counts, histograms[1].counts)
    assert ks == pytest.approx(expected.statistic, abs=1e-3)
    assert compute_p_value(ks, 1000, count) == pytest.approx(expected.pvalue, rel=0.15, abs=1e-4)


@given(COUNTS, st.data())
def test_the_test_statistic_and_its_probability_lie_in_0_to_1(counts: np.ndarray, data: st.DataObject) -> None:
    others = data.draw(arrays(np.int64, len(counts), elements=st.integers(0, 1000)).filter(lambda one: one.any()))
    ks = compute_ks(counts, others)
    assert 0 <= ks <= 1 + 1e-12
    assert 0 <= compute_p_value(ks, int(counts.sum()), int(others.sum())) <= 1
    assert compute_p_value(0.0, 5, 5) == 1


def test_probabilities_fall_as_the_difference_grows() -> None:
    values = [compute_p_value(ks, 500, 500) for ks in np.linspace(0, 1, 200)]
    assert values == sorted(values, reverse=True)


# Alarms


def test_equal_distributions_are_rarely_called_drift_at_any_size() -> None:
    verdicts = [
        summarize(compare(draw(10_000 + seed, size), draw(seed, count)))
        for seed in range(100)
        for size, count in ((200, 60), (200, 300), (2000, 150), (18_000, 5000))
    ]
    assert verdicts.count("drift") <= 1  # at most 1 % are allowed; KS on bins is stricter, and PSI must agree


def test_large_samples_that_are_equal_are_called_stable() -> None:
    verdicts = [summarize(compare(draw(10_000 + seed, 18_000), draw(seed, 5000))) for seed in range(30)]
    assert set(verdicts) == {"stable"}


def test_a_trifle_among_many_images_is_no_drift_though_significant() -> None:
    one = compare({"brightness": draw(1, 200_000)["brightness"]}, {"brightness": draw(2, 200_000, 0.05)["brightness"]})[
        0
    ]
    assert one.p_value < 1e-6
    assert one.verdict == "stable"


@pytest.mark.parametrize("count", [90, 300, 5000])
def test_shifts_by_one_deviation_are_found(count: int) -> None:
    for seed in range(20):
        found = {one.name: one.verdict for one in compare(draw(10_000 + seed, 2000), draw(seed, count, 1.0))}
        assert found["brightness"] == found["width"] == "drift"
        assert summarize(compare(draw(10_000 + seed, 2000), draw(seed, count, 1.0))) == "drift"


@pytest.mark.parametrize("count", [1, 5, MIN_IMAGES - 1])
def test_few_images_are_never_called_stable(count: int) -> None:
    assert {one.verdict for one in compare(draw(1, 5000), draw(2, count))} == {"too few"}


def test_a_small_reference_is_few_images_as_well() -> None:
    assert {one.verdict for one in compare(draw(1, 50), draw(2, 5000))} == {"too few"}


@pytest.mark.parametrize(
    ("psi", "p_value", "count", "threshold", "verdict"),
    [
        (0.05, 0.5, 1000, 0.25, "stable"),
        (0.05, 1e-9, 1000, 0.25, "stable"),
        (0.15, 1e-9, 1000, 0.25, "moderate"),
        (0.15, 1e-9, 1000, 0.10, "drift"),
        (0.15, 0.5, 1000, 0.25, "too few"),
        (0.30, 0.5, 1000, 0.25, "too few"),
        (0.30, 1e-9, 1000, 0.25, "drift"),
        (0.30, 1e-9, 20, 0.25, "drift"),
        (0.05, 0.5, 99, 0.25, "too few"),
        (0.06, 0.5, 1000, 0.05, "too few"),
        (0.15, 1e-9, 1000, 0.50, "moderate"),
    ],
)
def test_verdicts(psi: float, p_value: float, count: int, threshold: float, verdict: str) -> None:
    assert judge_effect(psi, p_value, count, threshold=threshold, level=0.002) == verdict


@pytest.mark.parametrize(("reference", "new"), [([360, 30, 610], [360, 610, 30]), ([30, 970], [500, 500])])
def test_a_rare_class_that_becomes_frequent_is_drift(reference: list[int], new: list[int]) -> None:
    """Bins of a tenth of the reference would hold it together with its neighbour."""
    classes = ("child", "man", "woman")[-len(reference) :]
    one, other = start_histogram("class", "val", classes), start_histogram("class", "", classes)
    one.add(np.repeat(np.arange(len(classes)), reference))
    other.add(np.repeat(np.arange(len(classes)), new))
    (found,) = compare({"class": one}, {"class": other})
    assert found.verdict == "drift"
    shares = np.divide([reference, new], 1000)
    assert found.psi == pytest.approx(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum(), rel=0.03)


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=50), st.randoms())
def test_order_and_batches_do_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = start_histogram("brightness", ""), start_histogram("brightness", "")
    one.add(values)
    for value in shuffled:
        other.add([value])
    assert one.counts.tolist() == other.counts.tolist()
    assert one.total == len(values)


def test_quantiles_are_right_to_a_bin() -> None:
    values = np.random.default_rng(0).normal(0.5, 0.1, 10_000)
    for share in (0.05, 0.5, 0.95):
        assert fill("brightness", values).quantile(share) == pytest.approx(np.quantile(values, share), abs=1 / 128)


def test_sizes_are_counted_by_the_pixel() -> None:
    for side in (1, 32, 200, 512):
        counted = fill("width", np.full(9, side))
        assert [round(counted.quantile(share)) for share in (0.05, 0.5, 0.95)] == [side] * 3
    sides = np.random.default_rng(0).integers(52, 112, 999)
    for share in (0.05, 0.5, 0.95):
        assert round(fill("width", sides).quantile(share)) == np.quantile(sides, share)
    assert fill("width", np.array([600] * 9)).quantile(0.5) == pytest.approx(600, rel=0.05)


def test_brightness_and_contrast_by_hand() -> None:
    images = np.zeros((3, 64, 64, 3), np.uint8)
    images[1] = 255
    images[2, :32] = 255
    measured = measure_pixels(images)
    np.testing.assert_allclose(measured["brightness"], [0, 1, 0.5], atol=1e-12)
    np.testing.assert_allclose(measured["contrast"], [0, 0, 0.5], atol=1e-12)
    probs = measure_predictions(np.array([[0.9, 0.1], [0.3, 0.7]]))
    assert (probs["class"].tolist(), probs["confidence"].tolist()) == ([0, 1], [0.9, 0.7])


def test_the_reference_survives_json() -> None:
    reference = draw(1, 100)
    again = parse_reference(json.dumps(to_jsonable(reference) | {"of later versions": {}}), "model.onnx")
    assert set(again) == set(reference)
    for name, one in reference.items():
        assert (again[name].counts.tolist(), again[name].categories) == (one.counts.tolist(), one.categories)
        np.testing.assert_array_equal(again[name].edges, one.edges)
    assert {one.ks for one in compare(again, reference)} == {0}


ENTRY = {"split": "train", "edges": [0, 1, 2], "counts": [1, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "model.onnx: holds no statistics of its training data; make it again"),
        ("{", "are damaged"),
        ("[]", "are damaged"),
        (json.dumps({"width": 3}), "are damaged"),
        (json.dumps({"width": {**ENTRY, "counts": [1, 2, 3]}}), "are damaged .*do not belong together"),
        (json.dumps({"width": {**ENTRY, "edges": [0, 0, 1]}}), "are damaged"),
        (json.dumps({"width": {**ENTRY, "counts": [-1, 2]}}), "are damaged"),
        (json.dumps({"width": {**ENTRY, "counts": [0, 0]}}), "are damaged"),
        (json.dumps({"width": {"edges": [0, 1], "counts": [1]}}), "are damaged"),
    ],
)
def test_damaged_references_are_refused(text: str | None, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        parse_reference(text, "model.onnx")
    assert "\n" not in str(caught.value)


# The command


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of chance with the distributions of drawn images."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    torch.manual_seed(0)
    network = build_model("linear", 2, 64).eval()
    pictures = [np.asarray(Image.fromarray(draw_pixels(seed)).resize((64, 64), 2)) for seed in range(1000, 1400)]
    unfamiliarity = fit_unfamiliarity(network, spec, np.stack(pictures[:200]), np.stack(pictures[200:]))
    export_onnx(path, network, spec, {}, unfamiliarity)
    predictor, pixels = Predictor(path), np.stack(pictures)
    flags = np.array([answer.unfamiliar for answer in predictor.compute(pixels)])
    values = measure_predictions(predictor.compute_probs(pixels), flags)
    values |= measure_pixels(pixels)
    reference = {name: fill(name, one) for name, one in values.items()}
    reference |= {"width": fill("width", np.full(400, 80)), "height": fill("height", np.full(400, 100))}
    metadata = {"data_digest": "abc", "reference": json.dumps(to_jsonable(reference))}
    export_onnx(path, network, spec, metadata, unfamiliarity)
    return path


@pytest.fixture(scope="module")
def alike(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alike")
    for seed in range(300):
        (folder / f"{seed}.jpg").write_bytes(picture(seed))
    return folder


def test_alike_pictures_are_no_drift(
    model: Path, alike: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    report, plot = tmp_path / "drift.json", tmp_path / "drift.png"
    arguments = ["monitor", str(alike), "--model", str(model), "--json", str(report), "--plot", str(plot)]
    assert main(arguments) == 0
    shown = capsys.readouterr()
    assert "300 images, against training data abc" in shown.out
    assert shown.out.endswith("no drift\n")
    told = json.loads(report.read_text())
    assert (told["verdict"], told["num_images"], told["num_unreadable"]) == ("stable", 300, 0)
    assert {one["name"] for one in told["statistics"]} == set(UNITS)
    assert {one["verdict"] for one in told["statistics"]} == {"stable"}
    with Image.open(plot) as drawn:
        assert min(drawn.size) > 400


def test_dark_small_pictures_are_drift_in_a_zip_too(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for seed in range(150):
            archive.writestr(f"{seed}.jpg", encode(draw_pixels(seed, 40, 50) // 3))
    assert main(["monitor", str(path), "--model", str(model), "--json", str(tmp_path / "r.json")]) == 3
    verdicts = {one["name"]: one["verdict"] for one in json.loads((tmp_path / "r.json").read_text())["statistics"]}
    assert {verdicts[name] for name in ("brightness", "contrast", "width", "height")} == {"drift"}
    assert "DRIFT: " in (shown := capsys.readouterr().out)
    assert "not by chance, of 150 images only: use at least 300)" in shown


def test_more_unfamiliar_pictures_are_drift_and_logs_without_the_column_are_read(
    model: Path, alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["true"] * 90 + ["false"] * 110 + [""] * 50
    rows = [f"{n},male,0.5,0.5,0.5,{flag}," for n, flag in enumerate(flags)]
    (tmp_path / "log.csv").write_text("\n".join([HEADER[:-6] + "unfamiliar,error", *rows]) + "\n")
    main(["monitor", str(tmp_path / "log.csv"), "--model", str(model), "--json", str(tmp_path / "r.json")])
    told = {one["name"]: one for one in json.loads((tmp_path / "r.json").read_text())["statistics"]}
    assert (told["unfamiliar"]["verdict"], told["unfamiliar"]["num_new"]) == ("drift", 200)
    assert told["unfamiliar"]["new"]["yes"] == 0.45
    (tmp_path / "log.csv").write_text(
        "\n".join([HEADER.strip(), *(f"{n},male,0.5,0.5,0.5," for n in range(200))]) + "\n"
    )
    main(["monitor", str(tmp_path / "log.csv"), "--model", str(model)])
    assert "not in a log of predictions: unfamiliar" in capsys.readouterr().out


def test_sizes_are_told_as_they_are(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(120):
        (tmp_path / f"{seed}.jpg").write_bytes(picture(seed, 200, 200))
    assert main(["monitor", str(tmp_path), "--model", str(model), "--json", str(tmp_path / "r.json")]) == 3
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    told = {one["name"]: one for one in json.loads((tmp_path / "r.json").read_text())["statistics"]}
    for name, old in (("width", 80), ("height", 100)):
        assert f" {old} ({old} to {old}) px " in lines[name]
        assert " 200 (200 to 200) px " in lines[name]
        assert told[name]["new"] == {"p05": 200, "median": 200, "p95": 200}


def test_references_of_earlier_versions_are_read_by_their_own_bins(model: Path, alike: Path, tmp_path: Path) -> None:
    """Sizes were counted by 16th parts of an octave."""
    metadata = dict(Predictor(model).metadata)
    reference = parse_reference(metadata["reference"], "model.onnx")
    edges = np.round(np.geomspace(8, 16384, 11 * 16 + 1), 2)
    for name, side in (("width", 80), ("height", 100)):
        reference[name] = Histogram(edges, split="train")
        reference[name].add([side] * 400)
    metadata["reference"] = json.dumps(to_jsonable(reference))
    old = onnx.load(str(model))
    onnx.helper.set_model_props(old, metadata)
    onnx.save(old, str(tmp_path / "old.onnx"))
    report = tmp_path / "r.json"
    assert main(["monitor", str(alike), "--model", str(tmp_path / "old.onnx"), "--json", str(report)]) == 0
    assert {one["verdict"] for one in json.loads(report.read_text())["statistics"]} == {"stable"}


def test_few_pictures_have_a_status_of_their_own(model: Path, alike: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["monitor", *(str(alike / f"{seed}.jpg") for seed in range(9)), "--model", str(model)]) == 4
    assert "TOO FEW IMAGES" in capsys.readouterr().out


def test_some_unreadable_pictures_are_counted_and_many_are_an_error(
    model: Path, alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"x")
    assert main(["monitor", str(alike), str(tmp_path / "broken.jpg"), "--model", str(model)]) == 0
    shown = capsys.readouterr()
    assert "300 images, 1 more unreadable" in shown.out
    assert "broken.jpg: not an image" in shown.err
    for number in range(30):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    assert main(["monitor", str(alike), str(tmp_path), "--model", str(model)]) == 1
    shown = capsys.readouterr()
    assert "31 of 331 images cannot be read (9.4%), more than 5%" in shown.err
    assert "more images cannot be read: they are only counted" in shown.err
    assert main(["monitor", str(tmp_path), "--model", str(model)]) == 1
    assert "there is no image to compare; 31 not read (see above)" in capsys.readouterr().err


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_log_of_predict_gives_the_figures_of_the_pictures(
    model: Path, alike: Path, tmp_path: Path, format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"x")
    both = [str(alike), str(tmp_path / "broken.jpg"), "--model", str(model)]
    assert main(["predict", *both, "--format", format, "--threshold", "0.9"]) == 1
    log = tmp_path / f"log.{format}"
    log.write_text(capsys.readouterr().out)
    reports = []
    for name, files in (("log.out", [str(log), "--model", str(model)]), ("images.out", both)):
        assert main(["monitor", *files, "--json", str(tmp_path / name)]) == 0
        reports.append(json.loads((tmp_path / name).read_text()))
    from_log, from_pictures = (
        {
            one["name"]: one["psi"]
            for one in report["statistics"]
            if one["name"] in ("class", "confidence", "unfamiliar")
        }
        for report in reports
    )
    assert from_log["class"] == from_pictures["class"]
    assert from_log["unfamiliar"] == from_pictures["unfamiliar"]
    assert from_log["confidence"] == pytest.approx(from_pictures["confidence"], abs=0.01)  # six digits at a bin's edge
    assert (reports[0]["num_images"], reports[0]["num_unreadable"]) == (300, 1)
    assert "not in a log of predictions: brightness, contrast, width, height" in capsys.readouterr().out


@pytest.mark.parametrize("format", ["csv", "json"])
def test_a_log_of_faces_counts_faces(format: str, tmp_path: Path) -> None:
    """Two faces in the first image, none in the second; the third cannot be read."""
    rows = [
        Prediction("1.jpg", "male", 0.75, (0.25, 0.75), box=(0, 0, 50, 60), unfamiliar=False),
        Prediction("1.jpg", "female", 0.875, (0.875, 0.125), box=(60, 0, 110, 60), unfamiliar=True),
        Prediction("2.jpg"),
        Prediction("3.jpg", error="not an image"),
    ]
    log = tmp_path / f"log.{format}"
    with log.open("w") as file, contextlib.redirect_stdout(file):
        write = _choose_writer(format, ("female", "male"), faces=True)
        for row in rows:
            write(row, row.label)
    (batch,) = read_logs([log], ("female", "male"))
    assert (batch.num_images, batch.unreadable) == (2, [("3.jpg", "not an image")])
    assert {name: values.tolist() for name, values in batch.values.items()} == {
        "class": [1, 0], "confidence": [0.75, 0.875], "unfamiliar": [0, 1]}  # fmt: skip


HEADER = "name,label,prob,prob_female,prob_male,error\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("log.out/none.csv", None, "log.out/none.csv: no such file\n"),
        ("log.csv", "", "line 1 lacks the column prob_female, prob_male"),
        ("log.csv", "name,label\na,b\n", "line 1 lacks the column"),
        ("log.csv", HEADER, "log.csv: there is no image to compare\n"),
        ("log.csv", HEADER + "a.jpg,male,0.9,0.2,0.9,\n", "line 2 has the probabilities 0.2, 0.9, not numbers"),
        ("log.csv", HEADER + "a.jpg,male,0.9,x,0.9,\n", "line 2 has the probabilities x, 0.9"),
        ("log.csv", HEADER + "a.jpg\n", "line 2 has the probabilities None, None"),
        ("log.csv", HEADER + "a.jpg,male,nan,nan,nan,\n", "line 2 has the probabilities nan"),
        ("log.csv", HEADER[:-6] + "unfamiliar,error\na,male,0.9,0.1,0.9,maybe,\n", "line 2 has 'maybe' as unfamiliar"),
        ("log.json", "{", "line 1 has no probabilities of female and male"),
        ("log.jsonl", '{"name": "a"}\n', "line 1 has no probabilities"),
        ("log.ndjson", "[1]\n", "line 1 has no probabilities"),
        ("log.json", '{"probs": {"female": true, "male": "x"}}\n', "line 1 has the probabilities"),
        ("log.json", "\n\n", "log.json: there is no image to compare\n"),
    ],
)
def test_other_logs_are_refused_by_line(
    model: Path, tmp_path: Path, name: str, text: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["monitor", str(tmp_path / name), "--model", str(model)]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("gender-classifier monitor: error: ")
    assert errors.count("\n") == 1


def test_nothing_but_an_earlier_comparison_is_replaced(
    model: Path, alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, pipe = alike / "0.jpg", tmp_path / "pipe.png"
    others = {"notes.png": b"mine", "log.png": b'{"name": "a.jpg", "label": "male"}\n', "pretty.png": b'{\n  "a": 1\n}'}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (64, 64)).save(tmp_path / "photo.png")
    others["photo.png"] = (tmp_path / "photo.png").read_bytes()
    os.mkfifo(pipe)
    before = image.read_bytes()
    one = ["monitor", str(image), "--model", str(model)]
    for option in ("--json", "--plot"):
        for path, message in (
            (image, "one of those to compare"),
            (pipe, "no regular file"),
            *((tmp_path / name, "exists and is no earlier") for name in others),
        ):
            assert main([*one, option, str(path)]) == 1
            assert message in capsys.readouterr().err
        assert main(["monitor", str(alike), "--model", str(model), option, str(image)]) == 1
        path = tmp_path / f"again{option}.png"
        for _ in range(2):
            assert main([*one, option, str(path)]) == 4
        link, dangling = tmp_path / f"link{option}.png", tmp_path / f"dangling{option}.png"
        link.symlink_to(path)
        dangling.symlink_to(tmp_path / "nowhere")
        for path in (link, dangling):
            assert main([*one, option, str(path)]) == 1
            assert path.is_symlink()
    assert (image.read_bytes(), pipe.is_fifo()) == (before, True)
    assert {name: (tmp_path / name).read_bytes() for name in others} == others


def test_the_two_outputs_are_two_files_and_the_plot_a_png(
    model: Path, alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = ["monitor", str(alike / "0.jpg"), "--model", str(model)]
    assert main([*one, "--plot", str(tmp_path / "drift.pdf")]) == 1
    assert "drift.pdf: does not end in .png; only PNG is written" in capsys.readouterr().err
    both = str(tmp_path / "drift.png")
    assert main([*one, "--json", both, "--plot", both]) == 1
    assert "drift.png: is the file of --json, too" in capsys.readouterr().err
    assert not list(tmp_path.glob("drift.*"))


def test_wrong_uses(model: Path, alike: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = ["monitor", str(alike / "0.jpg"), "--model", str(model)]
    for threshold in ("0", "-1", "nan", "much"):
        with pytest.raises(SystemExit) as caught:
            main([*one, "--threshold", threshold])
        assert caught.value.code == 2
    assert main(["monitor", str(tmp_path / "log.csv"), str(alike), "--model", str(model)]) == 1
    assert main(["monitor", str(tmp_path / "log.csv"), "--model", str(model)]) == 1
    assert main(["monitor", str(tmp_path / "nowhere"), "--model", str(model)]) == 1
    assert main([*one, "--json", str(alike / "0.jpg" / "x.json")]) == 1
    errors = capsys.readouterr().err
    for part in ("logs of predictions beside images", "log.csv: no such file", "no such file or folder", "--json"):
        assert part in errors


def test_a_model_without_statistics_is_refused(tmp_path: Path, alike: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = ModelSpec("linear", ("female", "male"), 64, (0.5,) * 3, (0.25,) * 3)
    export_onnx(tmp_path / "old.onnx", build_model("linear", 2, 64).eval(), spec, {})
    assert main(["monitor", str(alike), "--model", str(tmp_path / "old.onnx")]) == 1
    assert "old.onnx: holds no statistics of its training data" in capsys.readouterr().err


def test_neither_torch_nor_mlflow_nor_matplotlib_is_imported(model: Path, alike: Path) -> None:
    code = (
        "import sys; from gender_classifier.cli.main import main; status = main(sys.argv[1:]); "
        "print(sorted({'torch', 'mlflow', 'matplotlib', 'scipy', 'sklearn', 'yaml'} & set(sys.modules)), status)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "monitor", str(alike), "--model", str(model)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert found.stdout.splitlines()[-1] == "[] 0"


def test_csv_of_many_rows_is_read_in_parts(model: Path, tmp_path: Path) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(HEADER.strip().split(","))
    rng = np.random.default_rng(0)
    writer.writerows(["x", "male", p, 1 - p, p, ""] for p in rng.random(10_000))
    (tmp_path / "log.CSV").write_text(buffer.getvalue())
    assert main(["monitor", str(tmp_path / "log.CSV"), "--model", str(model), "--json", str(tmp_path / "r")]) == 3
    assert json.loads((tmp_path / "r").read_text())["num_images"] == 10_000

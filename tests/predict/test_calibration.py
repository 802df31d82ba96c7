"""`calibrate`: the new file is right about one's own images, says so, and is replaced by the next one."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import draw_pixels, encode
from fastapi.testclient import TestClient
from numpy.typing import NDArray
from served import SIZE, grey, write_model

from gender_classifier.cli.main import main
from gender_classifier.data.labelled_files import LabelledImage, LabelledSource
from gender_classifier.data.labelled_pixels import Reading
from gender_classifier.metrics.histograms import parse_reference, start_histogram, to_jsonable
from gender_classifier.metrics.platt import Figure
from gender_classifier.predict.calibration import fit_calibration, write_calibrated
from gender_classifier.predict.predictor import Predictor
from gender_classifier.predict.quantization import quantize_onnx
from gender_classifier.serve.app import Settings, build_app

CLASSES = ("female", "male")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model that says male from a grey of 128 on."""
    return write_model(tmp_path / "model.onnx")


def write_own(folder: Path, count: int = 120, threshold: int = 160) -> Path:
    """Write grey images, of which those from ``threshold`` on are male, one in ten the other way round."""
    rng = np.random.default_rng(0)
    for number, value in enumerate(rng.integers(20, 236, count).tolist()):
        label = CLASSES[(value >= threshold) ^ (number % 10 == 0)]
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{number:03}.png").write_bytes(grey(value))
    return folder


def calibrate(model: Path, target: Path, labelled: Path) -> int:
    return main(["calibrate", str(target), str(labelled), "--model", str(model)])


def test_the_new_file_is_right_where_the_model_was_not(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = model.read_bytes()
    assert calibrate(model, tmp_path / "new.onnx", write_own(tmp_path / "own")) == 0
    assert model.read_bytes() == before
    shades = np.stack([np.full((SIZE, SIZE, 3), value, np.uint8) for value in (100, 140, 150, 170, 200)])
    assert Predictor(model).compute_probs(shades).argmax(axis=1).tolist() == [0, 1, 1, 1, 1]
    new = Predictor(tmp_path / "new.onnx")
    assert new.compute_probs(shades).argmax(axis=1).tolist() == [0, 0, 0, 1, 1]
    *table, last = capsys.readouterr().out.splitlines()
    assert re.match(r"recall male +0\.\d{4} \(0\.\d{4} to \d\.\d{4}\)  ", table[4])
    assert re.search(
        r"new.onnx: calibrated on 120 images \(\d+ female, \d+ male\): temperature 0\.\d\d, bias \+\d\.\d\d female, "
        r"-\d\.\d\d male$", last
    )  # fmt: skip
    found = json.loads(new.metadata["calibration"])
    assert (found["images"], found["groups"], len(found["digest"])) == (120, 0, 64)
    assert sum(found["counts"].values()) == 120
    assert found["figures"]["accuracy"]["change"][0] > 0.05
    assert {key: value for key, value in new.metadata.items() if key != "calibration"} == dict(
        Predictor(model).metadata
    )


def test_a_fit_that_gains_nothing_says_so(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, first, second = write_own(tmp_path / "own"), tmp_path / "first.onnx", tmp_path / "second.onnx"
    assert calibrate(model, first, own) == 0
    assert "no gain" not in capsys.readouterr().out
    assert calibrate(first, second, own) == 0  # fitted to these images already
    assert second.is_file()
    *_, summary, verdict = capsys.readouterr().out.splitlines()
    assert "second.onnx: calibrated on 120 images" in summary
    assert verdict == f"{second}: a higher log loss on these images; keep {first}"
    default = tmp_path / "models" / "model.onnx"
    default.parent.mkdir()
    first.rename(default)
    monkeypatch.chdir(tmp_path)
    assert main(["calibrate", "third.onnx", str(own)]) == 0
    assert capsys.readouterr().out.endswith(f"; keep {default}\n")


def test_a_calibration_is_replaced_and_not_stacked(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, other = write_own(tmp_path / "own"), write_own(tmp_path / "other", threshold=200)
    first, second, third = (tmp_path / f"{number}.onnx" for number in range(3))
    assert calibrate(model, first, own) == calibrate(first, second, own) == calibrate(second, third, other) == 0
    assert "replaces the earlier calibration, which was fitted to these very images" in capsys.readouterr().out
    assert len(onnx.load(first).graph.node) == len(onnx.load(third).graph.node)
    direct = tmp_path / "direct.onnx"
    assert calibrate(model, direct, other) == 0
    shades = np.arange(0, 256, 5, dtype=np.uint8)[:, None, None, None] * np.ones((1, SIZE, SIZE, 3), np.uint8)
    np.testing.assert_array_equal(Predictor(third).compute_probs(shades), Predictor(direct).compute_probs(shades))
    assert first.read_bytes() != direct.read_bytes()
    same = [json.loads(Predictor(path).metadata["calibration"])["temperature"] for path in (first, second)]
    assert same[0] == same[1]


def test_the_service_and_its_page_say_on_how_many_images(tmp_path: Path, model: Path) -> None:
    assert calibrate(model, tmp_path / "new.onnx", write_own(tmp_path / "own")) == 0
    with TestClient(build_app(Predictor(tmp_path / "new.onnx"), Settings()), base_url="http://localhost") as client:
        found = client.get("/model").json()["calibration"]
        assert (found["images"], set(found["bias"])) == (120, set(CLASSES))
        answer = client.post("/predict", files=[("images", ("a.png", grey(150), "image/png"))]).json()
        assert answer[0]["label"] == "female"
    for metadata in ({}, {"calibration": "{"}, {"calibration": '{"images": "many"}'}):
        path = write_model(tmp_path / "odd.onnx", metadata)
        with TestClient(build_app(Predictor(path), Settings()), base_url="http://localhost") as client:
            assert client.get("/model").json()["calibration"] is None


def test_what_monitor_compares_with_is_of_the_calibrated_model(tmp_path: Path) -> None:
    """The old shares would be called drift, since the calibration moves them."""
    reference = {name: start_histogram(name, "val", CLASSES) for name in ("brightness", "class", "confidence")}
    for histogram in reference.values():
        histogram.add(np.ones(500))
    path = write_model(tmp_path / "model.onnx", {"reference": json.dumps(to_jsonable(reference))})
    assert calibrate(path, tmp_path / "new.onnx", write_own(tmp_path / "own")) == 0
    found = parse_reference(Predictor(tmp_path / "new.onnx").metadata["reference"], "new")
    assert {name: (one.split, one.total) for name, one in found.items()} == {
        "brightness": ("val", 500), "class": ("calibration", 120), "confidence": ("calibration", 120)
    }  # fmt: skip
    assert main(["monitor", str(tmp_path / "own"), "--model", str(tmp_path / "new.onnx")]) in (0, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_int8_before_and_after(tmp_path: Path, served_model: Path) -> None:
    """Both orders give a file that can be calibrated again; the calibration itself is not quantized."""
    pixels = np.stack([draw_pixels(seed, 64, 64) for seed in range(96)])
    own = Predictor(served_model).compute_probs(pixels)[:, 1]
    # Half of the images each, and a tenth against the model.
    labels = (own > np.median(own)) ^ (np.arange(96) % 10 == 0)
    images = [
        LabelledImage(f"{n}.png", f"{n}.png", int(label), "", "", (), lambda n=n: encode(pixels[n], "PNG"))  # type: ignore[misc]
        for n, label in enumerate(labels)
    ]

    def fit(source: Path, target: Path) -> np.ndarray:
        with LabelledSource("calibrate", "csv", images, {}) as labelled:
            write_calibrated(source, target, fit_calibration(source, Predictor(source), labelled, Reading()))
        return Predictor(target).compute_probs(pixels)

    calibrated, int8, both, again = (tmp_path / f"{name}.onnx" for name in ("fp32", "int8", "both", "again"))
    expected = fit(served_model, calibrated)
    quantize_onnx(served_model, int8, pixels)
    # An untrained model's probabilities hardly differ: the fit enlarges them, and the error of 8 bits, some thirty times.
    assert np.abs(fit(int8, both) - expected).mean() < 0.05
    quantize_onnx(calibrated, tmp_path / "later.onnx", pixels)
    later = Predictor(tmp_path / "later.onnx")
    assert later.metadata["precision"] == "int8"
    assert json.loads(later.metadata["calibration"])["images"] == 96
    assert np.abs(later.compute_probs(pixels) - expected).mean() < 0.05
    assert np.abs(fit(tmp_path / "later.onnx", again) - Predictor(both).compute_probs(pixels)).mean() < 0.02
    flags = [
        [answer.unfamiliar for answer in Predictor(path).compute(pixels)]
        for path in (served_model, calibrated, int8, both)
    ]
    assert flags[0] == flags[1]  # calibration leaves it as it is
    assert flags[2] == flags[3]
    assert None not in flags[0]
    kinds = [node.op_type for node in onnx.load(again).graph.node]
    assert (kinds.count("Log"), kinds.count("Softmax")) == (1, 2)


def test_wide_images_are_fitted_as_they_are_used(tmp_path: Path) -> None:
    path = write_model(tmp_path / "model.onnx", {"crop": "[1.5, 1.0]"})

    def fit(border: int) -> np.ndarray:
        images = []
        for n, value in enumerate(range(20, 236, 4)):
            data = encode(np.pad(np.full((40, 40, 3), value, np.uint8), ((0, 0), (border, border), (0, 0))), "PNG")
            label = int((value >= 128) ^ (n % 10 == 0))
            images.append(LabelledImage(f"{n}.png", f"{n}.png", label, "", "", (), lambda data=data: data))  # type: ignore[misc]
        with LabelledSource("calibrate", "csv", images, {}) as labelled:
            return fit_calibration(path, Predictor(path), labelled, Reading()).probs

    np.testing.assert_array_equal(fit(20), fit(0))  # the black sides are cut off


def write_related(folder: Path, model: Path, images: NDArray[np.uint8]) -> Path:
    """Write images, each labelled as the model would if half of them were of each class, but one in ten."""
    probs = Predictor(model).compute_probs(images)[:, 1]
    for number, (image, is_male) in enumerate(zip(images, probs > np.median(probs), strict=True)):
        path = folder / CLASSES[bool(is_male) ^ (number % 10 == 0)] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(image, "PNG"))
    return folder


def test_images_of_another_kind_are_told(
    tmp_path: Path, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = np.stack([draw_pixels(seed, 64, 64) for seed in range(60)])  # as its training images
    others = np.stack([np.full((64, 64, 3), 4 * seed, np.uint8) for seed in range(1, 61)])
    assert calibrate(served_model, tmp_path / "1.onnx", write_related(tmp_path / "others", served_model, others)) == 0
    assert re.search(
        r"calibrate: warning: .*others: 60 of 60 images are unfamiliar to the model; ", capsys.readouterr().err
    )
    assert calibrate(served_model, tmp_path / "2.onnx", write_related(tmp_path / "known", served_model, known)) == 0
    assert "unfamiliar" not in capsys.readouterr().err


def test_images_of_a_group_are_counted_as_one_source(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_own(tmp_path)
    files = sorted(path for label in CLASSES for path in (tmp_path / label).iterdir())
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},person {row // 2}" for row, path in enumerate(files)]
    (tmp_path / "own.csv").write_text("\n".join(["path,label,group", *rows]))
    assert calibrate(model, tmp_path / "new.onnx", tmp_path / "own.csv") == 0
    assert "calibrated on 120 images of 60 groups" in capsys.readouterr().out
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name},person {row % 3}" for row, path in enumerate(files)]
    (tmp_path / "few.csv").write_text("\n".join(["path,label,group", *rows]))
    assert calibrate(model, tmp_path / "few.onnx", tmp_path / "few.csv") == 1
    assert "the images of female are of 3 groups; cross-validation needs at least 5" in capsys.readouterr().err


def test_few_unreadable_images_are_named_and_left_out(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_own(tmp_path / "own")
    (own / "male" / "broken.png").write_bytes(grey(200)[:40])
    assert calibrate(model, tmp_path / "new.onnx", own) == 0
    out, err = capsys.readouterr()
    assert "calibrated on 120 images" in out
    assert "left out, cannot be read: male/broken.png" in err


def spoil(own: Path, how: str) -> None:
    male = sorted((own / "male").iterdir())
    if how == "no male":
        for path in male:
            path.unlink()
    elif how == "few male":
        for path in male[19:]:
            path.unlink()
    elif how == "unreadable":
        for path in male[:10]:
            path.write_bytes(b"")
    elif how == "misnamed":
        (own / "male").rename(own / "Herren")
    elif how == "swapped":
        (own / "male").rename(own / "other")
        (own / "female").rename(own / "male")
        (own / "other").rename(own / "female")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "no male",
            "calibrate: error: SET: 0 readable images of male are too few; give at least 20 of each class, better 100",
        ),
        ("few male", "SET: 19 readable images of male are too few"),
        ("unreadable", r"SET: 10 of 120 images cannot be read \(8.33%\), more than the tolerated 5%: 10 empty"),
        ("misnamed", "lies in a class folder 'Herren'; the classes are female and male, rename or remove that folder"),
        ("swapped", "not related to the labels of these 1[0-9]+ images, or opposed to them; check"),
    ],
)
def test_images_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str], how: str, message: str
) -> None:
    own = write_own(tmp_path / "own", threshold=128)
    spoil(own, how)
    assert calibrate(model, tmp_path / "new.onnx", own) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "new.onnx").exists()


def test_nothing_is_overwritten(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = model.read_bytes()
    own = write_own(tmp_path / "own")
    for target, message in (
        (model, "model.onnx: exists; remove it"),
        (tmp_path / "no" / "new.onnx", "there is no folder"),
        (tmp_path / "own.csv", "own.csv: does not end in .onnx; give the ONNX file to write first"),
    ):
        assert calibrate(model, target, own) == 1
        assert message in capsys.readouterr().err
    assert calibrate(model, tmp_path / "new.onnx", tmp_path / "nowhere") == 1
    assert "calibrate: error: SET: " in (err := capsys.readouterr().err)
    assert "no such folder or file; check the path" in err
    assert model.read_bytes() == before


def test_a_folder_in_place_of_the_output_is_not_to_be_removed(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = write_own(tmp_path / "own")
    assert calibrate(model, own, tmp_path / "new.onnx") == 1
    assert capsys.readouterr().err.endswith(
        f"{own}: is a folder; give the ONNX file to write first, then the labelled images\n"
    )


@pytest.mark.parametrize(
    ("low", "verdict"),
    [
        (0.02, "a higher log loss on these images"),
        (-0.01, "no gain in log loss on these images that can be told from chance"),
    ],
)
def test_a_calibration_that_does_harm_is_called_that(
    tmp_path: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    low: float,
    verdict: str,
) -> None:
    figures = {"loss": Figure((0.04, 0.03, 0.05), (0.07, 0.06, 0.08), (0.03, low, 0.04))}
    monkeypatch.setattr("gender_classifier.predict.calibration.cross_validate", lambda *_: figures)
    assert calibrate(model, tmp_path / "new.onnx", write_own(tmp_path / "own")) == 0
    assert capsys.readouterr().out.endswith(f"new.onnx: {verdict}; keep {model}\n")


def test_without_onnx_the_extra_is_named(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "gender_classifier.predict.calibration")
    assert calibrate(model, tmp_path / "new.onnx", tmp_path) == 1
    assert "onnx is not installed; install the extra `calibrate`" in capsys.readouterr().err


def test_metadata_and_graph_that_disagree_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_model(tmp_path / "model.onnx", {"calibration": "{}"})
    assert calibrate(path, tmp_path / "new.onnx", write_own(tmp_path / "own")) == 1
    assert "its metadata and its graph disagree on whether it is calibrated" in capsys.readouterr().err

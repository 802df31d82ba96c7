"""The model in use: the pixels and probabilities of the pipeline, streamed, and what is wrong said in one line."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import picture

from gender_classifier.common.paths import locate_pretrained
from gender_classifier.data.images import to_array
from gender_classifier.errors import ModelError
from gender_classifier.evaluate.export import compute_probs
from gender_classifier.predict.predictor import Prediction, Predictor, map_in_order

SRC = str(Path(__file__).parents[2] / "src")


@pytest.fixture(scope="module")
def predictor(served_model: Path) -> Predictor:
    return Predictor(served_model, threads=1)


def test_predictions_are_those_of_the_exported_file(predictor: Predictor, served_model: Path) -> None:
    pictures = [picture(seed) for seed in range(70)]
    arrays = np.stack([to_array(data, 64, max_pixels=10**6) for data in pictures])
    expected = compute_probs(served_model, arrays)
    found = list(predictor.predict((str(row), data) for row, data in enumerate(pictures)))
    assert [one.name for one in found] == [str(row) for row in range(70)]
    np.testing.assert_allclose([one.probs for one in found], expected, atol=1e-5)
    for one in found:
        assert one.error == ""
        assert one.prob == max(one.probs)
        assert one.label == predictor.classes[one.probs.index(one.prob)]


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_one_unreadable_picture_does_not_stop_the_rest(predictor: Predictor, batch_size: int) -> None:
    def refuse() -> bytes:
        raise PermissionError(13, "Permission denied", "secret.jpg")

    sources = [("a", picture(1)), ("b", b"no image"), ("c", refuse), ("d", lambda: picture(2)), ("e", b"")]
    found = list(predictor.predict(sources * 9, batch_size=batch_size, workers=2))
    assert [one.name for one in found] == list("abcde") * 9
    assert [bool(one.error) for one in found] == [False, True, True, False, True] * 9
    assert found[1] == Prediction("b", error="not an image in a format that is read (JPEG, PNG, WEBP, BMP, GIF, TIFF)")
    assert found[2].error == "cannot be read (Permission denied)"
    assert "empty" in found[4].error


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert list(predictor.predict([])) == []


def test_only_unreadable_pictures_are_no_batch(predictor: Predictor) -> None:
    assert all(one.error for one in predictor.predict([("a", b"x")] * 50))


def test_sources_are_taken_up_as_results_are(predictor: Predictor) -> None:
    data, taken = picture(1), 0

    def endless() -> Iterator[tuple[str, bytes]]:
        nonlocal taken
        while True:
            taken += 1
            yield str(taken), data

    results = predictor.predict(endless(), batch_size=4, workers=2)
    for wanted in range(1, 201):
        assert next(results).name == str(wanted)
        assert taken - wanted <= 4 * (2 * 2 + 1)
    results.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("predict")]


def test_an_error_of_the_program_reaches_the_caller(predictor: Predictor) -> None:
    def broken() -> bytes:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        list(predictor.predict([("a", picture(1)), ("b", broken)]))


def test_results_come_in_order_and_the_first_error_ends_them() -> None:
    results = map_in_order(lambda item: 12 // item, [4, 3, 0, 1], workers=3)
    assert [next(results), next(results)] == [3, 4]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_the_shipped_model_is_loaded_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Predictor("pretrained").metadata == Predictor(locate_pretrained("model.onnx")).metadata


def test_a_single_path_is_not_taken_letter_by_letter(served_model: Path) -> None:
    for path in ("one.jpg", Path("one.jpg")):
        with pytest.raises(TypeError, match=r"sources is a single path, .*; give a list: predict\(\[path\]\)"):
            Predictor(served_model).predict(path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"a source is a path or a pair \(name, content\), not bytes"):
        list(Predictor(served_model).predict([b"content"]))  # type: ignore[list-item]
    with pytest.raises(TypeError, match="^sources is a single file's content; give a list"):
        Predictor(served_model).predict(b"content")  # type: ignore[arg-type]


def test_a_missing_or_foreign_model_is_one_line(tmp_path: Path, served_model: Path) -> None:
    with pytest.raises(
        ModelError, match="no such file; give --model pretrained or another path, or make it: `dvc repro`"
    ):
        Predictor(tmp_path / "model.onnx")
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(served_model.read_bytes()[:5000])
    with pytest.raises(ModelError, match="not a whole ONNX model; check the path, or make the model again"):
        Predictor(torn)
    with pytest.raises(ModelError, match=r"is a folder; give the model file in it, such as .*model\.onnx$"):
        Predictor(tmp_path)
    foreign = onnx.load(served_model)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ModelError, match="its metadata lack 'classes'"):
        Predictor(tmp_path / "foreign.onnx")


def test_the_predictor_needs_few_packages() -> None:
    """A process that classifies an image loads none of what training and tracking need."""
    code = (
        "import sys, gender_classifier.cli.main, gender_classifier.predict.predictor, gender_classifier.predict.inputs\n"
        "import gender_classifier.track.model_source, gender_classifier.data.archive, gender_classifier.cli.predict\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={"PYTHONPATH": SRC}
    )
    heavy = {"torch", "torchvision", "mlflow", "matplotlib", "scipy", "sklearn", "onnx", "pandas", "sqlalchemy", "dvc",
             "tqdm", "yaml", "psutil", "fastapi", "uvicorn", "cv2"}  # fmt: skip
    assert {"onnxruntime", "numpy", "PIL"} <= set(done.stdout.split())
    assert not heavy & set(done.stdout.split())

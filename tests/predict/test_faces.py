"""Faces in whole images: found, cropped as the training images are, classified, drawn."""

import csv
import functools
import io
import json
import random
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gender_classifier.cli.main import main
from gender_classifier.cli.predict import _list_drawn
from gender_classifier.data.archive import Archive
from gender_classifier.data.images import decode, to_rgb, to_square
from gender_classifier.errors import ImageError, InputError, MissingPackageError
from gender_classifier.ingest.sample import draw_sample
from gender_classifier.predict.faces import Box, FaceFinder, draw_faces, place_drawn, predict_faces, save_drawn
from gender_classifier.predict.predictor import Prediction, Predictor

pytest.importorskip("dlib", reason="needs the extra `faces`")

FACES = Path(__file__).parents[2] / "shared" / "data" / "faces-12k.zip"


def compose(pictures: list[Image.Image], scale: float, seed: int) -> tuple[Image.Image, list[Box]]:
    """Paste up to 12 portraits into an image of 1,600 x 1,200 px; return where they are too."""
    rng = random.Random(seed)
    patches = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    canvas = Image.fromarray(patches).resize((1600, 1200), Image.Resampling.BICUBIC)
    boxes = []
    for place, portrait in enumerate(pictures):
        factor = min(scale * rng.uniform(0.8, 1.2), 400 / portrait.width, 400 / portrait.height)
        pasted = portrait.resize(
            (int(portrait.width * factor), int(portrait.height * factor)), Image.Resampling.BICUBIC
        )
        left = place % 4 * 400 + rng.randint(0, 400 - pasted.width)
        top = place // 4 * 400 + rng.randint(0, 400 - pasted.height)
        canvas.paste(pasted, (left, top))
        boxes.append((left, top, left + pasted.width, top + pasted.height))
    return canvas, boxes


def overlap(one: Box, two: Box) -> float:
    """Return intersection over union."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    shared = max(0, width) * max(0, height)
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, two))
    return shared / (areas - shared)


def measure(portraits: list[Image.Image], scale: float, least: float) -> tuple[float, int]:
    """Return recall (overlap with the pasted image above ``least``) and the number of boxes that are no face."""
    finder, hits, wrong = FaceFinder(), 0, 0
    for start in range(0, len(portraits), 12):
        canvas, boxes = compose(portraits[start : start + 12], scale, start)
        found = finder.find(canvas)
        hit = {place for place, box in enumerate(boxes) if any(overlap(box, one) > least for one in found)}
        hits += len(hit)
        wrong += len(found) - len(hit)
    return hits / len(portraits), wrong


@functools.cache
def drawn_portraits() -> list[Image.Image]:
    found = []
    for _, data in draw_sample(1, num_train=36, num_val=8):
        try:
            found.append(to_rgb(decode(data, max_pixels=10**6)))
        except ImageError:
            continue  # planted there
    return found[:24]


def test_drawn_portraits_are_found() -> None:
    # Drawn heads are rounder than people's, so the box is another than the drawing's frame.
    recall, wrong = measure(drawn_portraits(), 3.0, 0.1)
    assert recall >= 0.75
    assert wrong <= 2


@pytest.mark.skipif(not FACES.is_file(), reason="the extract of real faces is not here")
@pytest.mark.parametrize("scale", [1.0, 3.5])
def test_pasted_real_faces_are_found_and_framed_as_they_were(scale: float) -> None:
    with Archive(FACES) as archive:
        members = random.Random(1).sample([name for name in archive.members if name.startswith("Validation")], 48)
        recall, wrong = measure([to_rgb(decode(archive.read(name), max_pixels=10**6)) for name in members], scale, 0.5)
    assert recall >= 0.9
    assert wrong <= 2


class Fixed:
    """A finder with boxes of the test's."""

    def __init__(self, *boxes: Box) -> None:
        self.boxes = list(boxes)

    def find(self, _: Image.Image) -> list[Box]:
        return self.boxes


@pytest.fixture(scope="module")
def predictor(served_model: Path) -> Predictor:
    return Predictor(served_model, threads=1)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def group() -> Image.Image:
    return compose(drawn_portraits()[:12], 3.0, 5)[0]


def test_each_crop_is_classified_as_it_would_be_alone(predictor: Predictor, group: Image.Image) -> None:
    boxes = [(10, 20, 300, 380), (400, 0, 777, 399)]
    found = list(predict_faces(predictor, [("a", png(group))], Fixed(*boxes)))  # type: ignore[arg-type]
    alone = predictor.compute_probs(np.stack([to_square(group.crop(box), 64) for box in boxes]))
    assert [one.box for one in found] == boxes
    assert {one.name for one in found} == {"a"}
    np.testing.assert_allclose([one.probs for one in found], alone, atol=1e-6)


def test_a_face_that_is_too_small_is_refused_as_an_image_of_it_would_be(
    predictor: Predictor, group: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor, "min_side", 60)
    finder = Fixed((0, 0, 59, 200), (100, 0, 160, 70))
    small, large = predict_faces(predictor, [("a", png(group))], finder)  # type: ignore[arg-type]
    assert (small.error, small.box, small.probs) == (
        "a face: 59 x 200 px are too small; each side needs at least 60 px", (0, 0, 59, 200), ())  # fmt: skip
    assert (large.error, len(large.probs)) == ("", 2)


def test_no_text_on_a_drawing_rounds_to_certainty(
    folder: Path, served_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts: list[str] = []

    def note(image: Image.Image, boxes: Iterable[tuple[Box, str, int | None]]) -> Image.Image:
        texts.extend(text for _, text, _ in boxes)
        return image

    monkeypatch.setattr("gender_classifier.predict.faces.draw_faces", note)
    for prob, shown in ((0.9949, "male 0.99"), (0.9951, "male >0.99"), (1.0, "male >0.99")):
        monkeypatch.setattr(
            Predictor, "describe", lambda _, name, __, prob=prob: Prediction(name, "male", prob, (1 - prob, prob))
        )
        assert main(["predict", "--faces", "--model", str(served_model), "group.png", "--draw", "out"]) == 0
        assert set(texts) == {shown}
        texts.clear()


def test_of_many_drawings_the_first_are_named(tmp_path: Path) -> None:
    named = _list_drawn(Path("out"), {f"{number}.jpg.faces.jpg" for number in range(5)})
    assert named == "wrote 5 images with boxes to out: 0.jpg.faces.jpg, 1.jpg.faces.jpg, 2.jpg.faces.jpg and 2 more"
    assert _list_drawn(Path("o\x1b"), ["a"]) == "wrote 1 image with boxes to o\\x1b: a"


def test_a_picture_without_faces_and_an_unreadable_one_have_a_row_each(predictor: Predictor) -> None:
    plain = png(Image.new("RGB", (300, 300), (20, 90, 30)))
    found = list(
        predict_faces(
            predictor, [("plain", plain), ("bad", b"x"), ("dot", png(Image.new("RGB", (1, 1))))], FaceFinder()
        )
    )
    assert found[0] == Prediction("plain")
    assert found[1].name == "bad"
    assert "not an image" in found[1].error
    assert found[2] == Prediction("dot")


def test_boxes_stay_within_the_picture() -> None:
    for portrait in drawn_portraits()[:8]:  # the face fills it
        large = portrait.resize((portrait.width * 3, portrait.height * 3))
        for box in FaceFinder().find(large):
            assert 0 <= box[0] < box[2] <= large.width
            assert 0 <= box[1] < box[3] <= large.height


def test_a_missing_detector_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingPackageError, match=r"dlib is not installed; .* `pip install -e '\.\[faces\]'`"):
        FaceFinder()


def test_boxes_are_drawn_on_a_copy(group: Image.Image) -> None:
    before = group.tobytes()
    drawn = draw_faces(group, [((100, 100, 300, 340), "female 0.97", 0), ((0, 0, 60, 70), "uncertain 0.51", None)])
    assert group.tobytes() == before
    changed = np.argwhere((np.asarray(drawn) != np.asarray(group)).any(axis=2))
    assert changed.min(axis=0).tolist() == [0, 0]
    assert changed.max(axis=0).tolist() == [339, 299]
    assert drawn.getpixel((101, 200)) == (204, 121, 167)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("photos/a.jpg", "photos/a.jpg.faces.jpg"),
        ("../../etc/a.jpg", "etc/a.jpg.faces.jpg"),
        ("/etc/a.jpg", "etc/a.jpg.faces.jpg"),
        ("C:\\photos\\a.jpg", "C_/photos/a.jpg.faces.jpg"),
        ("-", "stdin.faces.jpg"),
        ("..", "image.faces.jpg"),
    ],
)
def test_drawn_pictures_stay_in_their_folder(tmp_path: Path, name: str, expected: str) -> None:
    save_drawn(tmp_path / "out", name, Image.new("RGB", (20, 20)), {})
    assert [str(path.relative_to(tmp_path / "out")) for path in tmp_path.rglob("*.jpg")] == [expected]


@settings(deadline=None)
@given(st.lists(st.text(st.sampled_from("aA./\\:\0\r-\u00e9\u0301e\udcff"), max_size=8), unique=True, max_size=8))
def test_pictures_of_any_names_have_paths_of_their_own_in_the_folder(names: list[str]) -> None:
    taken = dict[str, str]()
    paths = [place_drawn(name, taken) for name in names]
    assert [place_drawn(name, taken) for name in names] == paths
    assert len({unicodedata.normalize("NFC", str(path)).casefold() for path in paths}) == len(names)
    for path in paths:
        assert not path.is_absolute()
        assert ".." not in path.parts
        assert not {"\0", "\r", ":", "\\"} & set(str(path))


def test_a_name_like_anothers_hashed_one_has_a_path_of_its_own() -> None:
    first = place_drawn("../x.png", taken := {"x.png": "x.png"})
    names = ["x.png", "../x.png", str(first).removesuffix(".faces.jpg"), "./x.png", "X.PNG", "e\u0301", "\u00e9"]
    paths = [place_drawn(name, taken) for name in names]
    assert len({unicodedata.normalize("NFC", str(path)).casefold() for path in paths}) == len(names)


def test_equal_names_of_two_folders_and_long_names_do_not_overwrite_each_other(tmp_path: Path) -> None:
    taken = dict[str, str]()
    names = ["a/x.jpg", "../a/x.jpg", "b/x.jpg", "A/X.jpg", "-", "stdin", "w" * 250 + "1", "w" * 250 + "2"]
    for level, name in enumerate(names):
        save_drawn(tmp_path / "out", name, Image.new("RGB", (20, 20), (level, level, level)), taken)
    levels = [Image.open(path).getpixel((0, 0))[0] for path in (tmp_path / "out").rglob("*.faces.jpg")]
    assert sorted(levels) == list(range(len(names)))
    assert {"a/x.jpg.faces.jpg", "b/x.jpg.faces.jpg", "stdin.faces.jpg"} <= {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg")
    }


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written .* give --draw another folder"):
        save_drawn(tmp_path / "file", "a.jpg", Image.new("RGB", (20, 20)), {})


@pytest.mark.parametrize("content", [b"", b"a photo", b"\0" * 200 + b"gender-classifier predict --draw"])
def test_a_drawing_replaces_no_other_file(tmp_path: Path, content: bytes) -> None:
    place = tmp_path / "a.jpg.faces.jpg"
    place.write_bytes(content)
    with pytest.raises(
        InputError, match=r"a\.jpg\.faces\.jpg: exists and was not written by --draw; give --draw another"
    ):
        save_drawn(tmp_path, "a.jpg", Image.new("RGB", (20, 20)), {})
    assert place.read_bytes() == content
    place.unlink()
    save_drawn(tmp_path / "out", "b.jpg", Image.new("RGB", (20, 20)), {})
    place.symlink_to(tmp_path / "out" / "b.jpg.faces.jpg")
    with pytest.raises(InputError, match="exists and was not written by --draw"):
        save_drawn(tmp_path, "a.jpg", Image.new("RGB", (20, 20)), {})
    assert place.is_symlink()


@pytest.fixture
def folder(tmp_path: Path, group: Image.Image, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    group.save(tmp_path / "group.png")
    Image.new("RGB", (300, 300)).save(tmp_path / "plain.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_gives_a_row_a_face_and_draws_them(
    folder: Path, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--faces", "--model", str(served_model), "group.png", "plain.png"]
    assert main([*arguments, "--format", "json", "--draw", "out", "--threshold", "0"]) == 0
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == (
        "gender-classifier predict: wrote 2 images with boxes to out: group.png.faces.jpg, plain.png.faces.jpg\n"
    )
    assert len(rows) >= 9
    assert rows[-1] == {"name": "plain.png", "label": None, "box": None}
    for row in rows[:-1]:
        assert len(row["box"]) == 4
        assert row["label"] in ("female", "male")
    assert sorted(path.name for path in Path("out").iterdir()) == ["group.png.faces.jpg", "plain.png.faces.jpg"]
    assert main([*arguments, "--format", "csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "name,label,prob,prob_female,prob_male,unfamiliar,left,top,right,bottom,error"
    strangers = sum(row["unfamiliar"] == "true" for row in csv.DictReader(lines))  # a model of noise knows no faces
    assert lines[-1] == "plain.png,,,,,,,,,,"
    assert main([*arguments, "--threshold", "1"]) == 0
    shown = capsys.readouterr()
    *found, last = shown.out.splitlines()[1:]
    assert shown.err == (
        f"gender-classifier predict: {len(found)} faces: {len(found)} uncertain (below 1); {strangers} unfamiliar; "
        "1 without a face\n"
    )
    assert last.split() == ["no", "face", "plain.png"]
    assert all(line.startswith("uncertain, rather ") for line in found)


def test_a_second_run_replaces_the_drawings_and_does_not_search_them(
    folder: Path, served_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--faces", "--model", str(served_model), ".", "--draw", ".", "--format", "json"]
    assert main(arguments) == 0
    first = capsys.readouterr()
    drawn = {path.name: path.read_bytes() for path in folder.glob("*.faces.jpg")}
    assert sorted(drawn) == ["group.png.faces.jpg", "plain.png.faces.jpg"]
    assert main(arguments) == 0
    second = capsys.readouterr()
    assert second.out == first.out
    assert second.err == (
        f"{first.err}gender-classifier predict: left out 2 images that --draw wrote, such as ./group.png.faces.jpg\n"
    )
    assert {path.name: path.read_bytes() for path in folder.glob("*.jpg")} == drawn

"""Image-quality flags: scores by their definitions, thresholds, what rejects, and agreement with cleanvision."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_pixels, encode
from PIL import Image, ImageFilter

from gender_classifier.common.artifacts import Table
from gender_classifier.common.figures import Figure
from gender_classifier.data.archive import Archive, write_archive
from gender_classifier.data.images import shrink_grey
from gender_classifier.data.manifest import Record
from gender_classifier.pipeline.params import load_params
from gender_classifier.verify.corrections import Decisions
from gender_classifier.verify.inspection import Inspected, inspect
from gender_classifier.verify.params import FLAGS, QualityParams
from gender_classifier.verify.policies import judge
from gender_classifier.verify.quality import Flagged, Quality, QualityTable, assess, find_flags, measure_quality
from gender_classifier.verify.report import count_findings, describe_records, tell

POLICY = load_params(Path(__file__).parents[2] / "params.yaml").verify
LIMITS = POLICY.quality


def measure(image: Image.Image) -> Quality:
    grey = image.convert("L")
    return measure_quality(grey, shrink_grey(grey))


def flags(image: Image.Image, limits: QualityParams = LIMITS) -> set[str]:
    return {found.flag for found in find_flags(measure(image), limits)}


def face(seed: int, mode: str = "RGB") -> Image.Image:
    return Image.fromarray(draw_pixels(seed)).convert(mode)


def scale(image: Image.Image, low: int, high: int) -> Image.Image:
    return image.point(lambda level: round(low + level * (high - low) / 255))


def blur(image: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(5))


BAD = {
    "too_dark": scale(face(1), 0, 70),
    "too_light": scale(face(1), 245, 255),
    "blurred": blur(face(1)),
    "low_information": face(1).convert("L").point(lambda level: 255 * (level > 128)),
    "odd_shape": face(1).resize((300, 60)),
}


def test_each_fault_is_flagged() -> None:
    assert set(BAD) == set(FLAGS)
    assert all(not flags(face(seed)) for seed in range(20))
    for flag, image in BAD.items():
        assert flag in flags(image)
    assert flags(BAD["blurred"]) == {"blurred"}
    assert flags(BAD["odd_shape"]) - {"odd_shape"} <= {"blurred"}  # enlarged


@pytest.mark.parametrize("seed", range(3))
def test_brightness_and_entropy_follow_their_definitions(seed: int) -> None:
    image = face(seed)
    levels = np.asarray(image.convert("L"))
    found = measure(image)
    low, high = np.percentile(levels, (5, 99), method="inverted_cdf")
    assert (found.shadow, found.highlight) == (low / 255, high / 255)
    shares = np.bincount(levels.ravel()) / levels.size
    assert found.entropy == pytest.approx(-sum(share * np.log2(share) for share in shares if share))
    assert found.aspect_ratio == 0.8


def test_sharpness_follows_its_definition() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    levels = pixels.astype(float)
    around = sum(np.roll(levels, step, axis) for step in (-1, 1) for axis in (0, 1))
    laplacian = (4 * levels - around)[1:-1, 1:-1]
    sharpness = measure(Image.fromarray(pixels)).sharpness
    assert sharpness == pytest.approx(np.sqrt((laplacian**2).mean()) / levels.std())
    assert sharpness == pytest.approx(np.sqrt(20), rel=0.05)  # of white noise: 4² + 4 · 1²
    assert measure(Image.new("L", (64, 64), 90)).sharpness == 0


def test_a_pale_image_is_not_blurred_and_a_blurred_one_is() -> None:
    for seed in range(5):
        sharp = measure(face(seed)).sharpness
        assert measure(scale(face(seed), 100, 160)).sharpness == pytest.approx(sharp, rel=0.05)
        blurred = [measure(face(seed).filter(ImageFilter.GaussianBlur(sigma))).sharpness for sigma in (1, 2, 4)]
        assert sharp > blurred[0] > blurred[1] > blurred[2]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
def test_every_mode_is_measured(mode: str) -> None:
    file = io.BytesIO()
    face(1).convert(mode).save(file, "TIFF")
    quality = inspect("a.tif", file.getvalue(), max_pixels=10**6).quality
    assert quality is not None
    assert quality.sharpness > LIMITS.min_sharpness
    if mode != "1":
        assert quality.highlight == pytest.approx(measure(face(1)).highlight, abs=0.1)


def inspected(images: dict[str, Image.Image]) -> list[Inspected]:
    found = [
        inspect(f"{name}.png", encode(np.asarray(image), "PNG"), max_pixels=10**6) for name, image in images.items()
    ]
    return [one._replace(record=replace(one.record, split="train", label="female")) for one in found]


def test_flags_are_reported_and_reject_only_on_request() -> None:
    found = [*inspected(BAD | {"good": face(2)}), inspect("broken.png", b"", max_pixels=10**6)]
    records, quality = assess(found, LIMITS)
    assert records == [record for record, _ in found]
    assert set(quality.scores) == {f"{name}.png" for name in (*BAD, "good")}
    assert set(quality.flags) == {f"{name}.png" for name in BAD}
    strict, same = assess(found, replace(LIMITS, reject=("too_dark", "odd_shape")))
    assert same == quality
    reasons = {record.member: record.reason for record in judge(strict, POLICY) if record.status == "rejected"}
    assert reasons == {"too_dark.png": "too_dark", "odd_shape.png": "odd_shape", "broken.png": "empty"}


def test_the_worst_come_first_and_no_flag_crowds_out_another() -> None:
    def quality(**score: float) -> Quality:
        return Quality(
            **{"highlight": 0.9, "shadow": 0.1, "sharpness": 0.5, "entropy": 7, "aspect_ratio": 0.8, **score}
        )

    scores = {f"blurred {n}": quality(sharpness=n / 100) for n in range(9)}
    scores |= {
        "light": quality(shadow=0.97),
        "lighter": quality(shadow=0.99),
        "both": quality(shadow=0.98, sharpness=0),
    }
    _, table = assess([(Record(name, "", "", ""), found) for name, found in scores.items()], LIMITS)
    assert table.count() == {"too_dark": 0, "too_light": 3, "blurred": 10, "low_information": 0, "odd_shape": 0}
    shown = [(member, found.flag, found.score) for member, found in table.pick_worst(6)]
    assert shown == [
        ("lighter", "too_light", 0.99), ("both", "too_light", 0.98), ("light", "too_light", 0.97),
        ("blurred 0", "blurred", 0), ("blurred 1", "blurred", 0.01), ("blurred 2", "blurred", 0.02),
    ]  # fmt: skip
    assert [member for member, _ in table.pick_worst(2)] == ["lighter", "blurred 0"]
    assert table.pick_worst(0) == QualityTable({}, {}).pick_worst(6) == []


def test_the_report_holds_every_score_and_draws_the_flagged(tmp_path: Path) -> None:
    images = BAD | {"good": face(2)}
    write_archive(
        tmp_path / "raw.zip", [(f"{name}.png", encode(np.asarray(images[name]), "PNG")) for name in sorted(images)]
    )
    records, quality = assess(inspected(images), LIMITS)
    records = judge(records, POLICY)
    with Archive(tmp_path / "raw.zip") as archive:
        artifacts = {one.path: one for one in describe_records(records, archive, 10**6, quality, Decisions(0, 0, 0, 0))}
    table = artifacts["data/verified/quality.csv"].content
    assert isinstance(table, Table)
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["good.png"][-1] == ""
    assert rows["odd_shape.png"][4] == "0.2000"
    assert "odd_shape" in str(rows["odd_shape.png"][-1]).split()
    counts = quality.count()
    assert artifacts["metrics/verify.json"].content["flagged"] == counts  # type: ignore[index]
    assert {key: value for key, value in count_findings(records, quality).items() if key.startswith("flagged/")} == {
        f"flagged/{flag}": count for flag, count in counts.items()
    }
    assert f"; flagged too_dark {counts['too_dark']}, " in tell(records, quality)
    sheet = artifacts["metrics/sheets/verify/flagged.png"]
    assert isinstance(sheet.content, Figure)
    assert sheet.mirror == ""
    (axes,) = sheet.content.axes
    shapes = [image.get_array().shape for image in axes.images]
    assert len(shapes) == len(BAD)
    assert (19, 96, 3) in shapes  # the odd shape is not squeezed into a square
    assert any(text.get_text().startswith("too_dark 0.2") for text in axes.texts)


def test_an_image_without_anything_to_see_is_rejected_and_stops_no_sheet(tmp_path: Path) -> None:
    (found,) = inspected({"clear": Image.new("RGBA", (80, 100))})
    assert (found.record.reason, found.quality) == ("unreadable", None)
    write_archive(tmp_path / "raw.zip", [("clear.png", encode(np.zeros((100, 80, 4), np.uint8), "PNG"))])
    quality = QualityTable({}, {"clear.png": (Flagged("too_dark", 0.0, 0.4),)})
    with Archive(tmp_path / "raw.zip") as archive:
        artifacts = describe_records([found.record], archive, 10**6, quality, Decisions(0, 0, 0, 0))
        sheet = {artifact.path: artifact.content for artifact in artifacts}["metrics/sheets/verify/flagged.png"]
    assert isinstance(sheet, Figure)
    assert "cannot be\ndecoded" in [text.get_text() for text in sheet.axes[0].texts]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_cleanvision_finds_the_same(mode: str, tmp_path: Path) -> None:
    cleanvision = pytest.importorskip("cleanvision", reason="needs cleanvision: pip install cleanvision")
    images = {name: image.convert(mode) for name, image in BAD.items()}
    for number in range(20):
        low, high = 12 * number, 80 + 175 * number // 19
        images[f"{number}"] = scale(face(number, mode), low, high).resize((60 + 5 * number, 100))
        images[f"sharp {number}"] = face(number, mode)
        images[f"blurred {number}"] = blur(face(number, mode))
    for name, image in images.items():
        image.save(tmp_path / f"{name}.png")
    lab = cleanvision.Imagelab(data_path=str(tmp_path), verbose=False)
    kinds = {"too_dark": "dark", "too_light": "light", "low_information": "low_information",
             "odd_shape": "odd_aspect_ratio", "blurred": "blurry"}  # fmt: skip
    lab.find_issues({kind: {} for kind in kinds.values()}, n_jobs=1, verbose=False)
    theirs = {Path(name).stem: row for name, row in lab.issues.iterrows()}
    for name, image in images.items():
        ours, row, found = measure(image), theirs[name], flags(image)
        tolerance = 1 / 255 if mode == "L" else 0.1  # of colours, they take a root mean square
        assert ours.highlight == pytest.approx(row["dark_score"], abs=tolerance)
        assert ours.shadow == pytest.approx(1 - row["light_score"], abs=tolerance)
        assert ours.aspect_ratio == pytest.approx(row["odd_aspect_ratio_score"])
        assert ("odd_shape" in found) == row["is_odd_aspect_ratio_issue"]
        if mode == "L":  # of colours, they count the levels of each channel apart: up to log2 3 bits more
            assert ours.entropy / 10 == pytest.approx(row["low_information_score"])
            for flag in ("too_dark", "too_light", "low_information"):
                assert (flag in found) == row[f"is_{kinds[flag]}_issue"], (name, flag)
    edges = {Path(name).stem: value for name, value in lab.info["blurry"]["blurriness"].items()}
    for number in range(20):  # a score of another kind, which agrees about which of two is blurred
        sharp, blurred = f"sharp {number}", f"blurred {number}"
        assert edges[blurred] < edges[sharp]
        assert measure(images[blurred]).sharpness < LIMITS.min_sharpness < measure(images[sharp]).sharpness

"""Verdicts over images: each fault found, each policy kept, nothing depends on the order."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from conftest import draw_pixels, encode, inspect_labelled, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gender_classifier.data.archive import Archive, write_archive
from gender_classifier.data.corrections import Correction
from gender_classifier.data.file_names import escape_name
from gender_classifier.data.manifest import Record, read_manifest, write_manifest
from gender_classifier.data.raw_table import RawRow, write_raw_table
from gender_classifier.errors import DataError
from gender_classifier.ingest.sources import ingest
from gender_classifier.pipeline.params import load_params
from gender_classifier.verify.duplicates import find_near_pairs
from gender_classifier.verify.inspection import inspect, inspect_all
from gender_classifier.verify.params import VerifyParams
from gender_classifier.verify.policies import check_fitness, judge
from gender_classifier.verify.quality import QualityTable
from gender_classifier.verify.report import pair_twins, summarize, tell

POLICY = load_params(Path(__file__).parents[2] / "params.yaml").verify


def resaved(seed: int) -> bytes:
    return encode(np.asarray(Image.fromarray(draw_pixels(seed)).resize((84, 105))), quality=70)


def look(members: dict[str, bytes], policy: VerifyParams = POLICY) -> dict[str, Record]:
    records = [inspect_labelled(name, data, policy.max_pixels) for name, data in members.items()]
    return {record.member: record for record in judge(records, policy)}


def verdict(record: Record) -> tuple[str, str]:
    return record.status, record.reason


F, M, VF = "Training/female/", "Training/male/", "Validation/female/"


def test_facts_of_one_image() -> None:
    record = inspect(f"{F}1.jpg", picture(1, 80, 100), max_pixels=10**6).record
    assert (record.split, record.label, record.width, record.height, record.mode) == ("", "", 80, 100, "RGB")
    assert len(record.sha256) == len(record.phash) == 64


def test_a_camera_raw_file_is_not_taken_for_its_preview() -> None:
    # Most raw formats are TIFF files whose first image is a thumbnail.
    tiff = encode(draw_pixels(1), "TIFF")
    assert verdict(inspect(f"{F}1.NEF", tiff, max_pixels=10**6).record) == ("rejected", "not_an_image")
    assert verdict(inspect(f"{F}1.tif", tiff, max_pixels=10**6).record) == ("ok", "")
    assert verdict(inspect(f"{F}1.heic", picture(1), max_pixels=10**6).record) == ("ok", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"a note", "not_an_image"),
        (picture(1)[:-500], "truncated"),
        (encode(np.zeros((9000, 9000), np.uint8), "PNG"), "too_large"),
        (picture(1, 31, 90), "too_small"),
    ],
)
def test_unusable_images_are_rejected(data: bytes, reason: str) -> None:
    assert verdict(look({f"{F}1.jpg": data})[f"{F}1.jpg"]) == ("rejected", reason)


def test_wrong_modes_are_converted_or_rejected() -> None:
    grey = {f"{F}1.jpg": encode(draw_pixels(1)[:, :, 0])}
    assert verdict(look(grey)[f"{F}1.jpg"]) == ("ok", "wrong_mode")
    strict = replace(POLICY, wrong_mode="reject")
    assert verdict(look(grey, strict)[f"{F}1.jpg"]) == ("rejected", "wrong_mode")


def test_of_exact_duplicates_the_first_stays() -> None:
    members = {f"{F}3.jpg": picture(1), f"{F}1.jpg": picture(1), f"{F}2.jpg": picture(2)}
    found = look(members)
    assert [verdict(found[f"{F}{n}.jpg"]) for n in (1, 2, 3)] == [
        ("ok", ""),
        ("ok", ""),
        ("rejected", "exact_duplicate"),
    ]
    assert found[f"{F}1.jpg"].duplicate_group == found[f"{F}3.jpg"].duplicate_group != ""
    kept = look(members, replace(POLICY, exact_duplicates="keep"))
    assert {record.status for record in kept.values()} == {"ok"}


def test_near_duplicates_are_grouped_dropped_or_kept() -> None:
    members = {f"{F}1.jpg": picture(1), f"{F}2.jpg": resaved(1), f"{F}3.jpg": picture(3)}
    grouped = look(members)
    assert [grouped[f"{F}{n}.jpg"].duplicate_group for n in (1, 2, 3)] == ["1", "1", ""]
    assert verdict(grouped[f"{F}2.jpg"]) == ("ok", "near_duplicate")
    dropped = look(members, replace(POLICY, near_duplicates="drop"))
    assert [dropped[f"{F}{n}.jpg"].status for n in (1, 2, 3)] == ["ok", "rejected", "ok"]
    kept = look(members, replace(POLICY, near_duplicates="keep"))
    assert {verdict(record) for record in kept.values()} == {("ok", "")}
    assert {record.duplicate_group for record in kept.values()} == {""}


def test_one_picture_under_two_labels_goes_altogether() -> None:
    members = {f"{F}1.jpg": picture(1), f"{M}1.jpg": picture(1), f"{M}2.jpg": picture(2)}
    found = look(members)
    assert [verdict(found[name]) for name in members] == [
        ("rejected", "conflicting_label"), ("rejected", "conflicting_label"), ("ok", "")]  # fmt: skip
    kept = look(members, replace(POLICY, conflicting_labels="keep", exact_duplicates="keep"))
    assert {record.status for record in kept.values()} == {"ok"}


@pytest.mark.parametrize("copy", [picture, resaved])
@pytest.mark.parametrize(
    ("policy", "training", "validation"),
    [("drop_train", "rejected", "ok"), ("drop_test", "ok", "rejected"), ("keep", "ok", "ok")],
)
def test_leaks_between_the_splits(copy: object, policy: str, training: str, validation: str) -> None:
    members = {f"{F}1.jpg": picture(1), f"{VF}9.jpg": copy(1)}  # type: ignore[operator]
    found = look(members, replace(POLICY, leakage=policy))  # type: ignore[arg-type]
    assert (found[f"{F}1.jpg"].status, found[f"{VF}9.jpg"].status) == (training, validation)
    reasons = {record.reason for record in found.values() if record.status == "rejected"}
    assert reasons <= {"leakage"}


def test_files_that_cannot_be_decoded_are_no_duplicates() -> None:
    found = look({f"{F}1.jpg": b"", f"{F}2.jpg": b"", f"{VF}1.jpg": b""})
    assert {(record.reason, record.duplicate_group) for record in found.values()} == {("empty", "")}


def test_flat_pictures_are_no_near_duplicates() -> None:
    flat = {f"{F}{n}.png": encode(np.full((64, 64, 3), 10 * n, np.uint8), "PNG") for n in range(1, 5)}
    assert {record.duplicate_group for record in look(flat).values()} == {""}


@settings(max_examples=20, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(random: Random) -> None:
    members = [(f"{F}{n:02}.jpg", picture(n % 5) if n % 3 else resaved(n % 5)) for n in range(10)]
    expected = list(look(dict(members)).values())
    random.shuffle(members)
    assert list(look(dict(members)).values()) == expected


def test_near_pairs_are_those_of_the_definition() -> None:
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, (60, 256), dtype=np.uint8)
    for row in range(30):
        rows[row + 30] = rows[row]
        rows[row + 30, rng.choice(256, row, replace=False)] ^= 1
    hashes = [np.packbits(row).tobytes().hex() for row in rows]
    expected = {(i, j) for j in range(60) for i in range(j) if int((rows[i] != rows[j]).sum()) <= 12}
    assert set(find_near_pairs(hashes, 12, block=7)) == expected
    assert len(expected) == 13
    assert list(find_near_pairs([], 12)) == []


def full(count: int = 3) -> list[Record]:
    folders = [(split, label) for split in ("train", "test") for label in ("female", "male")]
    return [
        Record(f"{split}/{label}/{n}.jpg", split, label, "0" * 64, width=80, height=100, mode="RGB")
        for split, label in folders
        for n in range(count)
    ]


def test_a_whole_data_set_is_fit() -> None:
    check_fitness(full(), POLICY)


def test_a_missing_class_is_named() -> None:
    records = [record for record in full() if not record.member.startswith("test/male")]
    with pytest.raises(DataError, match="test/male: is missing or empty"):
        check_fitness(records, POLICY)


def test_a_class_without_a_usable_image_is_named() -> None:
    records = [
        replace(record, status="rejected", reason="empty") if record.label == "male" else record for record in full()
    ]
    with pytest.raises(DataError, match="train/male: none of its 3 images is usable"):
        check_fitness(records, POLICY)


def test_too_many_rejects_stop_with_what_and_how_many() -> None:
    records = full(10)
    records[0] = replace(records[0], status="rejected", reason="empty")
    records[1] = replace(records[1], status="rejected", reason="truncated")
    with pytest.raises(
        DataError,
        match=r"2 of 40 images rejected \(5.00%\), more than the tolerated 2.00%: 1 empty, 1 truncated "
        rf"\({records[0].member}, {records[1].member}\); correct the data and read it again \(`dvc repro --force ",
    ):
        check_fitness(records, POLICY)
    check_fitness(records, replace(POLICY, max_rejected=0.05))


def test_images_that_people_removed_are_no_rejects_whatever_else_is_wrong_with_them() -> None:
    records = [replace(record, sha256=f"{n:064x}") for n, record in enumerate(full(10))]
    for n in range(4):
        records[n] = replace(records[n], status="rejected", reason="conflicting_label")
    removals = {f"{n:064x}": Correction(f"{n:064x}", "", "female", "", "2026-01-31T09:30:00Z") for n in range(4)}
    check_fitness(records, POLICY, removals)
    kept = {key: replace(row, label_after="female") for key, row in removals.items()}
    with pytest.raises(DataError, match="4 of 40 images rejected"):
        check_fitness(records, POLICY, kept)


def test_the_summary_counts_what_was_done() -> None:
    found = summarize(
        list(
            look(
                {f"{F}1.jpg": picture(1), f"{F}2.jpg": picture(1), f"{M}3.jpg": b"", f"{M}4.jpg": picture(4, 40, 60)}
            ).values()
        )
    )
    assert (found["num_images"], found["num_ok"], found["num_rejected"]) == (4, 2, 2)
    assert found["findings"] == {"empty": {"rejected": 1}, "exact_duplicate": {"rejected": 1}}
    assert found["counts"]["train"]["male"] == {"ok": 1, "rejected": 1}
    assert found["width_px"] == {"min": 40, "median": 80, "max": 80}


def test_rejected_copies_are_shown_beside_what_they_repeat() -> None:
    members = {
        f"{F}0 empty.jpg": b"",
        f"{F}1 leak.jpg": picture(1),
        f"{F}2 copied.jpg": picture(2),
        f"{F}3 copy.jpg": picture(2),
        f"{F}4 again.jpg": picture(2),
        f"{F}5 either.jpg": picture(5),
        f"{F}6 alone.jpg": picture(6),
        f"{M}5 or.jpg": picture(5),
        f"{VF}1 leaked.jpg": picture(1),
    }
    records = list(look(members).values())
    rejects = [record for record in records if record.status == "rejected"]
    shown = [record.member.rpartition("/")[2].removesuffix(".jpg") for record in pair_twins(rejects, records)]
    assert shown == [
        "1 leak", "1 leaked", "3 copy", "2 copied", "4 again", "2 copied", "5 either", "5 or", "0 empty"]  # fmt: skip
    assert pair_twins([], records) == []


def test_the_manifest_comes_back_as_it_was(tmp_path: Path) -> None:
    records = list(look({f"{F}1, odd.jpg": picture(1), f'{F}2 "x".jpg': b"", f"{VF}3.jpg": picture(1)}).values())
    write_manifest(tmp_path / "m.csv", records)
    assert read_manifest(tmp_path / "m.csv") == records


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "line 1 lacks the column"),
        (lambda text: text.replace("member", "name", 1), "line 1 lacks the column"),
        (lambda text: text.replace(",80,", ",eighty,"), "line 2 is not a record"),
        (lambda text: text.replace(",ok,", ",fine,"), "line 2 is not a record"),
        (lambda text: text[:-40], r"line 2 has \d+ cells, not 12"),
    ],
)
def test_damaged_manifests_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = tmp_path / "m.csv"
    write_manifest(path, look({f"{F}1.jpg": picture(1)}).values())
    path.write_text(change(path.read_text()))  # type: ignore[operator]
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_missing_manifest_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="dvc repro verify"):
        read_manifest(tmp_path / "m.csv")


@given(st.lists(st.text(st.characters(codec="utf-8") | st.sampled_from('\r\n",$ ;\t\\'), max_size=8), max_size=4))
def test_any_name_survives_the_manifest(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    records = [Record(name, "train", name, "0" * 64, reason=name, group=name) for name in names]
    path = tmp_path_factory.mktemp("m") / "m.csv"
    write_manifest(path, records)
    assert read_manifest(path) == records


def test_any_name_of_a_folder_reaches_the_manifest_and_leads_back_to_its_image(tmp_path: Path) -> None:
    odd = ["a\\b.jpg", "c\rd\n$x$.jpg", ' e,".jpg'] + ([os.fsdecode(b"\xff.jpg")] if sys.platform == "linux" else [])
    names = [f"{F}{name}" for name in odd] + [f"{M}1.jpg", f"{VF}1.jpg", "Validation/male/1.jpg"]
    images = {name: picture(number) for number, name in enumerate(names)}
    for name, data in images.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    params = load_params(Path(__file__).parents[2] / "params.yaml").ingest
    ingest(replace(params, source=str(tmp_path / "set")), tmp_path / "raw.zip", tmp_path / "raw.csv", base_dir=tmp_path)
    with Archive(tmp_path / "raw.zip") as archive:
        found = look({name: archive.read(name) for name in archive.members})
        write_manifest(tmp_path / "m.csv", found.values())
        read = {record.member: archive.read(record.member) for record in read_manifest(tmp_path / "m.csv")}
    assert read == {escape_name(name): data for name, data in images.items()}


def test_labels_come_from_the_table_and_never_from_a_path(tmp_path: Path) -> None:
    members = ["Training/female/1.jpg", "b.jpg"]
    write_archive(tmp_path / "raw.zip", [(name, picture(number)) for number, name in enumerate(members)])
    rows = [RawRow(members[0], "male", "test", "p1"), RawRow(members[1], "60+", "train")]
    write_raw_table(tmp_path / "raw.csv", (), rows)
    with (
        Archive(tmp_path / "raw.zip") as archive,
        inspect_all(archive, tmp_path / "raw.csv", 10**6) as inspected,
    ):
        found = [record for record, _ in inspected]
    assert [(record.member, record.label, record.split, record.group) for record in found] == [
        (row.member, row.label, row.split, row.group) for row in rows
    ]
    assert all(record.width == 80 for record in found)


def test_a_table_of_another_archive_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "raw.zip", [("a.jpg", picture(1)), ("b.jpg", picture(2))])
    write_raw_table(tmp_path / "raw.csv", (), [RawRow("a.jpg", "x", "train")])
    with (
        Archive(tmp_path / "raw.zip") as archive,
        pytest.raises(DataError, match=r"raw.csv: does not list the 2 images of .*raw.zip in order; run"),
        inspect_all(archive, tmp_path / "raw.csv", 10**6),
    ):
        pass


def person(member: str, split: str, group: str, seed: int) -> Record:
    return replace(inspect(member, picture(seed), max_pixels=10**6).record, split=split, label="female", group=group)


@pytest.mark.parametrize(
    ("policy", "lost"),
    [("drop_train", {"1": "person_leakage", "3": "person_leakage", "5": "person_leakage", "7": "leakage"}),
     ("drop_test", {"2": "person_leakage", "4": "person_leakage", "6": "person_leakage", "8": "leakage"}), ("keep", {})],
)  # fmt: skip
def test_people_in_two_splits_are_treated_as_copies_are_and_counted(policy: str, lost: dict[str, str]) -> None:
    records = [
        person("1", "train", "ann", 1), person("2", "test", "ann", 2),
        person("3", "train", "ben", 3), person("4", "val", "ben", 4),
        person("5", "val", "cem", 5), person("6", "test", "cem", 6),
        person("7", "train", "", 7), person("8", "test", "dan", 7),
        person("9", "train", "eve", 9), person("a", "train", "eve", 10),
    ]  # fmt: skip
    found = judge(records, replace(POLICY, leakage=policy))  # type: ignore[arg-type]
    assert {record.member: record.reason for record in found if record.status == "rejected"} == lost
    summary = summarize(found)
    assert (summary["people"], summary["people_in_several_splits"]) == (5, 3)
    assert "3 of 5 people are in more than one split of the source" in tell(found, QualityTable({}, {}))


def test_a_copy_joins_two_people() -> None:
    records = [
        person("1", "train", "ann", 1), person("2", "train", "anne", 1), person("3", "test", "anne", 3),
    ]  # fmt: skip
    found = {record.member: verdict(record) for record in judge(records, POLICY)}
    assert found == {"1": ("rejected", "person_leakage"), "2": ("rejected", "person_leakage"), "3": ("ok", "")}

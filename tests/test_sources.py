"""Sources become one archive, or one line that says what is wrong with them."""

from __future__ import annotations

import hashlib
import sys
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from gender_classifier.archive import Archive
from gender_classifier.errors import ArchiveError, GenderClassifierError, SourceError
from gender_classifier.params import load_params
from gender_classifier.sources import KAGGLE_HANDLE, Snapshot, ingest

PARAMS = replace(load_params(Path(__file__).parents[1] / "params.yaml").ingest, sample_train=24, sample_val=8)
FILES = {f"{split}/{label}/{n}.jpg.jpg": f"{split}{label}{n}".encode()
         for split in ("Training", "Validation") for label in ("female", "male") for n in (2, 1, 10)}  # fmt: skip


def fill(folder: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def take(source: str | Path, base: Path) -> tuple[Snapshot, dict[str, bytes]]:
    out = base / "out" / "raw.zip"
    snapshot = ingest(replace(PARAMS, source=str(source)), out, base_dir=base)
    assert snapshot.sha256 == hashlib.sha256(out.read_bytes()).hexdigest()
    with Archive(out) as archive:
        return snapshot, {name: archive.read(name) for name in archive.members}


def test_a_folder_a_zip_and_a_deeper_zip_give_one_archive(tmp_path: Path) -> None:
    clutter = {"README.txt": b"hi", "__MACOSX/Training/female/._1.jpg": b"x", "Training/female/.DS_Store": b"x"}
    sources = [
        fill(tmp_path / "folder"),
        pack(tmp_path / "flat.zip", dict(reversed(FILES.items()))),
        pack(tmp_path / "deep.zip", {f"archive/faces/{name}": data for name, data in FILES.items()}),
        fill(fill(tmp_path / "cluttered", clutter)),
    ]
    found = [take(source, tmp_path) for source in sources]
    assert [members for _, members in found] == [FILES] * 4
    assert len({snapshot.sha256 for snapshot, _ in found}) == 1
    assert [snapshot.kind for snapshot, _ in found] == ["folder", "zip", "zip", "folder"]
    assert [snapshot.ignored for snapshot, _ in found] == [0, 0, 0, 3]
    assert found[0][0].counts == dict.fromkeys(sorted({name.rpartition("/")[0] for name in FILES}), 3)


def test_a_relative_path_means_the_project_root(tmp_path: Path) -> None:
    fill(tmp_path / "project" / "faces")
    snapshot, _ = take("faces", tmp_path / "project")
    assert (snapshot.source, snapshot.num_images) == ("faces", 12)


def test_the_sample_is_drawn(tmp_path: Path) -> None:
    snapshot, members = take("sample", tmp_path)
    assert (snapshot.kind, snapshot.num_images, len(members)) == ("sample", 32, 32)
    assert "say nothing about faces" in snapshot.note


def without(*prefixes: str) -> dict[str, bytes]:
    return {name: data for name, data in FILES.items() if not name.startswith(prefixes)}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.txt": b""}, "is no data set of this layout"),
        (without("Validation"), "Validation/female, Validation/male missing or empty"),
        (without("Training/male", "Validation/male"), "Training/male, Validation/male missing or empty"),
        (FILES | {"Training/other/1.jpg": b""}, "class folder 'other'"),
        (FILES | {"Training/male/more/1.jpg": b""}, "Training/male/more/1.jpg lies in a folder below its class"),
        (FILES | {"second/Training/male/1.jpg": b""}, "holds 2 data sets"),
    ],
)
def test_other_layouts_are_refused_by_name(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for source in (fill(tmp_path / "folder", files), pack(tmp_path / "a.zip", files)):
        with pytest.raises(SourceError, match=message) as caught:
            take(source, tmp_path)
        assert str(source) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such folder or file; choose sample, kaggle, or a path"):
        take("nowhere.zip", tmp_path)


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x03\x04 cut"])
def test_a_file_that_is_no_archive_leaves_the_old_snapshot(tmp_path: Path, data: bytes) -> None:
    _, before = take(fill(tmp_path / "folder"), tmp_path)
    (tmp_path / "bad.zip").write_bytes(data)
    with pytest.raises(ArchiveError, match="not a whole zip file"):
        take("bad.zip", tmp_path)
    with Archive(tmp_path / "out" / "raw.zip") as archive:
        assert {name: archive.read(name) for name in archive.members} == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["raw.zip"]


def test_the_pipelines_own_archive_is_no_source(tmp_path: Path) -> None:
    take(fill(tmp_path / "folder"), tmp_path)
    with pytest.raises(SourceError, match="pipeline's own archive"):
        take("out/raw.zip", tmp_path)


def test_kaggle_asks_for_the_pinned_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fill(tmp_path / "cache" / "archive")

    def download(handle: str) -> str:
        asked.append(handle)
        return str(tmp_path / "cache")

    monkeypatch.setitem(sys.modules, "kagglehub", types.SimpleNamespace(dataset_download=download))
    snapshot, members = take("kaggle", tmp_path)
    assert asked == [f"{KAGGLE_HANDLE}/versions/1"]
    assert (snapshot.kind, members) == ("kaggle", FILES)


def test_kaggle_without_network_says_how_to_do_it_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(GenderClassifierError, match="download the zip by hand") as caught:
        take("kaggle", tmp_path)
    assert "-S source=" in str(caught.value)
    assert "\n" not in str(caught.value)

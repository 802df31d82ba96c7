"""The store lies in the main checkout whatever its path, its experiments' names, and where a process runs; it may move."""

import os
import shutil
import sqlite3
import string
from pathlib import Path
from urllib.parse import unquote

import mlflow.artifacts
import pytest
from conftest import client
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from gender_classifier.common import locks
from gender_classifier.errors import LockError, TrackingError
from gender_classifier.track import relocation, store
from gender_classifier.track.delivery import catch_up
from gender_classifier.track.outbox import find_outboxes
from gender_classifier.track.run import TrackedRun, track
from gender_classifier.track.store import connect, find_tracking_uri, locate_store_root, name_store

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=30)


def log_figure(root: Path) -> TrackedRun:
    """Log a file named after the checkout to a new run."""
    (root / "figure.txt").write_text(root.name)
    with track("train", root, params={}) as run:
        run.log_artifact(root / "figure.txt")
    return run


def read_figure(root: Path, run: TrackedRun) -> str:
    run_uri = connect(root).get_run(run.run_id).info.artifact_uri
    return Path(mlflow.artifacts.download_artifacts(f"{run_uri}/figure.txt")).read_text()


@given(name=NAMES.filter(lambda name: name not in (".", "..")))
def test_any_folder_can_hold_the_store(name: str) -> None:
    file = Path("/home/somebody") / name / "mlflow.db"
    uri = store._build_sqlite_uri(file)
    assert store._find_sqlite_file(uri) == file
    # Where MLflow would take the escapes for part of the path, and make that folder, the address is written otherwise.
    assert uri == f"sqlite:///{file}" or not uri.startswith("sqlite:///")


@pytest.mark.parametrize("name", ["what?", "100% sure #1", "größe", "a b&c=d;e"])
def test_a_checkout_of_any_name_keeps_all_in_itself(name: str, tmp_path: Path, empty_store: Path) -> None:
    root = tmp_path / name
    root.mkdir()
    shutil.copy(empty_store, root / "mlflow.db")
    run = log_figure(root)
    assert read_figure(root, run) == name
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert {path.name for path in root.iterdir()} == {"mlflow.db", ".mlflow.lock", "mlartifacts", "figure.txt"}


@pytest.mark.parametrize("given", ["sqlite:///runs/x.db", "sqlite:///./runs/x.db", "sqlite+pysqlite:///runs/x.db"])
def test_a_relative_address_is_relative_to_the_main_checkout(
    given: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = root / ".dvc" / "tmp" / "exps" / "tmpabc"
    (copy / ".dvc").mkdir(parents=True)
    (root / "runs").mkdir()
    (root / "mlflow.db").rename(root / "runs" / "x.db")
    monkeypatch.setenv("DVC_ROOT", str(root))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    monkeypatch.chdir(copy)
    run = log_figure(copy)
    found = MlflowClient(tracking_uri=f"sqlite:///{root}/runs/x.db").get_run(run.run_id)
    assert found.info.artifact_uri.startswith((root / "runs" / "mlartifacts").as_uri())
    assert {path.name for path in copy.iterdir()} == {".dvc", "figure.txt"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("sqlite:///x.db?timeout=30", "sqlite:///{root}/x.db?timeout=30"),
        ("sqlite:////abs/x.db", "sqlite:////abs/x.db"),
        ("sqlite:///file:x.db?mode=ro&uri=true", "sqlite+pysqlite:///file:{root}/x.db?mode=ro&uri=true"),
        ("./mlruns", "file://{root}/mlruns"),
        ("file:mlruns", "file://{root}/mlruns"),
        ("file:///abs/mlruns", "file:///abs/mlruns"),
        ("https://mlflow.example.org", "https://mlflow.example.org"),
        ("databricks", "databricks"),
        ("postgresql://u:p@db.example.org/mlflow", "postgresql://u:p@db.example.org/mlflow"),
    ],
)
def test_addresses(given: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert unquote(find_tracking_uri(tmp_path)) == expected.format(root=tmp_path)


@pytest.mark.parametrize(
    "given", ["sqlite://", "sqlite:///:memory:", "sqlite://:x", "sqlite:///file:x?mode=memory&uri=true"]
)
def test_an_address_that_keeps_nothing_is_refused(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    with pytest.raises(TrackingError, match="MLFLOW_TRACKING_URI is"):
        find_tracking_uri(tmp_path)


def test_outside_any_project_the_store_must_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrackingError, match=r"no project here \(no dvc.yaml .* or set MLFLOW_TRACKING_URI"):
        locate_store_root(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert locate_store_root(tmp_path) == tmp_path


@given(
    name=st.one_of(NAMES, st.sampled_from(["/Users/me/x", "../x", "..", ".", "a\\b", "C:\\x", "x" * 5000, "a/../b"]))
)
def test_an_experiments_name_is_no_path(name: str) -> None:
    folder = store._name_folder(name)
    assert set(folder) <= set(string.ascii_letters + string.digits + "_.-")
    assert folder.strip(".") == folder != ""
    assert len(folder) <= 80


def test_experiments_of_like_names_have_folders_of_their_own() -> None:
    assert store._name_folder("gender-classifier") == "gender-classifier"
    assert len({store._name_folder(name) for name in ("a/b", "a b", "a-b", "a:b", "/a-b")}) == 5


@pytest.mark.parametrize("name", ["/tmp/somewhere/else", "../../x"])
def test_artifacts_stay_below_their_folder(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    run = log_figure(root)
    found = client(root).get_run(run.run_id)
    assert client(root).get_experiment(found.info.experiment_id).name == name
    assert found.info.artifact_uri.startswith((root / "mlartifacts").as_uri())
    assert ".." not in found.info.artifact_uri
    assert len(list((root / "mlartifacts").rglob("figure.txt"))) == 1


def test_an_experiments_id_names_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = client(root).create_experiment("chosen", artifact_location=(root / "chosen").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", chosen)
    with track("train", root, params={}) as run, track("verify", root, params={}, data=True):
        pass
    assert client(root).get_run(run.run_id).info.experiment_id == chosen
    assert {one.name for one in client(root).search_experiments()} == {"Default", "chosen", "chosen-data"}
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "another")
    with pytest.raises(TrackingError, match="unset one of them"), track("train", root, params={}):
        pass
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    for unknown in ("99", "best"):
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", unknown)
        with (
            pytest.raises(TrackingError, match=f"MLFLOW_EXPERIMENT_ID is '{unknown}'"),
            track("train", root, params={}),
        ):
            pass


@pytest.mark.parametrize("is_old", [False, True])
def test_a_moved_checkout_keeps_its_artifacts(is_old: bool, tmp_path: Path, empty_store: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copy(empty_store, before / "mlflow.db")
    run = log_figure(before)
    if is_old:  # a version of this project that marked no folder
        with sqlite3.connect(before / "mlflow.db") as connection:
            connection.execute("DELETE FROM experiment_tags WHERE key = ?", [relocation.ARTIFACTS_TAG])
    before.rename(after)
    assert read_figure(after, run) == "before"
    second = log_figure(after)
    assert read_figure(after, second) == "after"
    assert [path.name for path in tmp_path.iterdir()] == ["after"]


def test_a_copy_and_its_original_leave_each_other_alone(tmp_path: Path, empty_store: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    shutil.copy(empty_store, original / "mlflow.db")
    run = log_figure(original)
    shutil.copytree(original, copy)
    own = log_figure(copy)
    ids = [{path.parent.parent.name for path in root.rglob("artifacts/figure.txt")} for root in (original, copy)]
    assert ids == [{run.run_id}, {run.run_id, own.run_id}]
    shutil.rmtree(original)
    assert read_figure(copy, run) == "original"


def test_a_place_that_somebody_chose_stays(tmp_path: Path, empty_store: Path) -> None:
    before, after, chosen = (tmp_path / name for name in ("before", "after", "shared/mlartifacts/faces"))
    before.mkdir()
    shutil.copy(empty_store, before / "mlflow.db")
    client(before).create_experiment("gender-classifier", artifact_location=chosen.as_uri())
    run = log_figure(before)
    before.rename(after)
    assert read_figure(after, run) == "before"
    assert (chosen / run.run_id / "artifacts" / "figure.txt").is_file()


def test_a_shared_store_leaves_the_artifacts_of_earlier_versions_where_they_are(
    tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, first, second = (tmp_path / name for name in ("shared", "first", "second"))
    for folder in (shared, first, second):
        folder.mkdir()
    shutil.copy(empty_store, shared / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{shared}/mlflow.db")
    location = (first / "mlartifacts" / "gender-classifier").as_uri()
    client(shared).create_experiment("gender-classifier", artifact_location=location)
    run = log_figure(first)
    with track("verify", second, params={}, data=True) as data:  # a new experiment: beside the shared file
        data.log_artifact(first / "figure.txt")
    assert (shared / "mlartifacts").is_dir()
    assert read_figure(second, run) == "first"


def test_a_moved_checkout_still_sends_what_was_held_back(tmp_path: Path, empty_store: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    shutil.copy(empty_store, before / "mlflow.db")
    run = log_figure(before)
    run._outbox.append({"kind": "tags", "tags": {"late": "yes"}})
    before.rename(after)
    connected = connect(after)
    assert len(find_outboxes(after / ".mlflow-unsent", name_store(connected.tracking_uri, after))) == 1
    assert catch_up(connected, after) == (1, 0)
    assert connected.get_run(run.run_id).data.tags["late"] == "yes"


def test_a_store_that_cannot_be_written_can_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = log_figure(root)
    (root / ".mlflow.lock").unlink()
    # Whoever runs the tests may be allowed everything.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != root)
    assert connect(root).get_run(run.run_id).info.run_id == run.run_id
    assert not (root / ".mlflow.lock").exists()


def test_another_kind_of_store_needs_no_lock(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(TrackingError, match="127.0.0.1"):
        connect(root)
    assert not list(root.rglob("*.lock"))


@pytest.mark.parametrize("address", ["mssql+pyodbc:///mlflow", "mysql:///mlflow"])
def test_a_package_that_the_store_needs_is_named(root: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    with pytest.raises(
        TrackingError, match=r"^MLflow needs a package that is not here \(No module named '(pyodbc|MySQLdb)"
    ):
        connect(root)


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no flock here")])
def test_a_file_system_without_locks_is_named(error: Exception, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(locks.FileLock, "acquire", fail)
    with pytest.raises(
        LockError, match=rf"{root}/.mlflow.lock: cannot be locked \(.*check that the folder is writable"
    ):
        connect(root)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LockError, match="cannot be locked"), locks.hold_lock(tmp_path / "file" / "x.lock"):
        pass

"""Artifacts of a local MLflow store, after its folder was moved or copied.

MLflow keeps the places of artifacts as absolute URIs, made when an experiment is created. Moved, a checkout would look
for its models where they no longer are; copied, it would write into the original.
"""

from pathlib import Path
from urllib.parse import unquote

from mlflow.utils.file_utils import local_file_uri_to_path
from sqlalchemy import Connection, NullPool, create_engine, inspect, text

ARTIFACTS_TAG = "artifacts.folder"
"""Tag of an experiment: the folder, as a URI, below which this project has put its artifacts."""

# Where MLflow's tables name a place of artifacts.
_PLACES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def find_artifacts_dir(file: Path | None, main_root: Path) -> Path:
    """Return the folder of artifacts: beside an SQLite file, so that they move together; else in the checkout."""
    return (file.parent if file is not None else main_root) / "mlartifacts"


def follow_move(uri: str, file: Path, main_root: Path) -> None:
    """Correct the places of artifacts, where the folder beside the SQLite file is no longer the one they were put in.

    Args:
        uri: of the store, whose tables exist.
        file: the SQLite file.
        main_root: the checkout that uses it.
    """
    here = find_artifacts_dir(file, main_root)
    engine = create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        known = _read_artifact_folders(connection, with_unmarked=file.is_relative_to(main_root))
        moved = [folder for folder in known if _has_moved(folder, here, file, main_root)]
    if not moved:
        return
    with engine.begin() as connection:
        for folder in moved:
            _rewrite_places(connection, folder, here.as_uri())
    engine.dispose()


def _read_artifact_folders(connection: Connection, *, with_unmarked: bool) -> set[str]:
    """Return the folders, as URIs, below which this project has put artifacts.

    Stores of earlier versions have no tag. These put each experiment into a folder of its name, in the checkout: only
    of a store in a checkout is it known where that folder is now.
    """
    rows = connection.execute(
        text(
            "SELECT experiments.name, artifact_location, value FROM experiments LEFT JOIN experiment_tags "
            "ON experiment_tags.experiment_id = experiments.experiment_id AND key = :key"
        ),
        {"key": ARTIFACTS_TAG},
    )
    folders = set()
    for name, location, tagged in rows:
        parent, _, folder = (location or "").rpartition("/")
        is_ours = unquote(folder) == name and parent.startswith("file:") and parent.endswith("/mlartifacts")
        if tagged or (with_unmarked and is_ours):
            folders.add(tagged or parent)
    return folders


def _has_moved(folder: str, here: Path, file: Path, main_root: Path) -> bool:
    if folder == here.as_uri():
        return False
    old = Path(local_file_uri_to_path(folder))  # type: ignore[no-untyped-call]
    if old.is_relative_to(main_root) and old.exists():  # the file alone was moved within the checkout
        return False
    return here.exists() or not old.exists() or file.is_relative_to(main_root)


def _rewrite_places(connection: Connection, old: str, new: str) -> None:
    tables = set(inspect(connection).get_table_names())
    for table, column in _PLACES:
        if table in tables:
            connection.execute(
                text(
                    f"UPDATE {table} SET {column} = :new || substr({column}, :length) "  # noqa: S608  names of ours
                    f"WHERE substr({column}, 1, :length) = :old || '/'"
                ),
                {"old": old, "new": new, "length": len(old) + 1},
            )
    connection.execute(
        text("UPDATE experiment_tags SET value = :new WHERE key = :key AND value = :old"),
        {"new": new, "key": ARTIFACTS_TAG, "old": old},
    )

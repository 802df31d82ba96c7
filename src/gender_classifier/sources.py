"""Where images come from: the drawn sample, Kaggle, a folder or a zip, each brought into one archive."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from gender_classifier.archive import Archive, write_archive
from gender_classifier.errors import SourceError
from gender_classifier.layout import CLASSES, RAW_SPLITS, SAMPLE, SAMPLE_NOTE
from gender_classifier.params import IngestParams
from gender_classifier.sample import draw_sample

KAGGLE_HANDLE = "cashutosh/gender-classification-dataset"

_LAYOUT = "Training/female, Training/male, Validation/female and Validation/male with pictures"
_CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class Snapshot:
    """What was taken.

    ``counts`` is images a class folder, ``ignored`` the files outside the layout, ``note`` what a reader of any
    figure must know of the data.
    """

    source: str
    kind: str
    num_images: int
    counts: dict[str, int]
    ignored: int
    sha256: str
    note: str = ""


Contents = Mapping[str, Callable[[], bytes]]
"""Member name to a function that reads it."""


def ingest(params: IngestParams, archive_path: Path, *, base_dir: Path) -> Snapshot:
    """Read the source that ``params`` names once and write it as one archive.

    Args:
        params: the source and its settings.
        archive_path: where to; whole or not at all.
        base_dir: what a relative source is relative to.

    Raises:
        SourceError: the source is missing, cannot be read, or is not laid out as a data set.
        ArchiveError: it is a zip file that must not be read.
    """
    if params.source == SAMPLE:
        total = params.sample_train + params.sample_val
        drawn = draw_sample(params.sample_seed, num_train=params.sample_train, num_val=params.sample_val)
        return _store(params.source, SAMPLE, drawn, total, 0, archive_path)
    kind, path = "kaggle", Path()
    if params.source == "kaggle":
        path = _fetch_kaggle(params.kaggle_version)
    else:
        path = (base_dir / Path(params.source).expanduser()).resolve()
        kind = "folder" if path.is_dir() else "zip"
    if path == archive_path.resolve():
        raise SourceError(f"source {path}: is the pipeline's own archive, which ingest replaces; give another")
    if path.is_dir():
        found = _find_layout({name: _reader(file) for name, file in _walk(path)}, path)
        return _store_found(params.source, kind, found, archive_path)
    if not path.exists():
        raise SourceError(f"source {path}: no such folder or file; choose sample, kaggle, or a path that exists")
    with Archive(path) as archive:
        contents = {name: _member_reader(archive, name) for name in archive.members}
        return _store_found(params.source, kind, _find_layout(contents, path), archive_path)


def _fetch_kaggle(version: int) -> Path:
    handle = f"{KAGGLE_HANDLE}/versions/{version}"
    try:
        import kagglehub  # noqa: PLC0415  a slow import that other sources do not need

        return Path(kagglehub.dataset_download(handle))
    except ImportError:
        raise SourceError("source kaggle: the package kagglehub is not installed; pip install kagglehub") from None
    except Exception as error:  # requests', urllib3's and kagglehub's own, none of them promised
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SourceError(
            f"source kaggle: {handle} cannot be fetched ({type(error).__name__}: {reason}); download the zip by hand "
            f"from kaggle.com/datasets/{KAGGLE_HANDLE} and run: dvc exp run -S source=/path/to/archive.zip"
        ) from None


def _store_found(source: str, kind: str, found: tuple[Contents, int], archive_path: Path) -> Snapshot:
    contents, ignored = found
    members = ((name, contents[name]()) for name in sorted(contents))
    return _store(source, kind, members, len(contents), ignored, archive_path)


def _store(
    source: str, kind: str, members: Iterable[tuple[str, bytes]], total: int, ignored: int, archive_path: Path
) -> Snapshot:
    counts: Counter[str] = Counter()

    def counted() -> Iterator[tuple[str, bytes]]:
        for name, data in tqdm(members, total=total, desc="ingest", unit="img", disable=None, dynamic_ncols=True):
            counts[name.rpartition("/")[0]] += 1
            yield name, data

    num_images = write_archive(archive_path, counted())
    with archive_path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(2**20):
            digest.update(block)
    note = SAMPLE_NOTE if kind == SAMPLE else ""
    return Snapshot(source, kind, num_images, dict(sorted(counts.items())), ignored, digest.hexdigest(), note)


def _find_layout(contents: Contents, path: Path) -> tuple[Contents, int]:
    """Find the one folder that holds the layout; return its files under canonical names, and how many lie outside."""
    tidy = {name: read for name, read in contents.items() if not _is_clutter(name)}
    placed = {name: _place(name) for name in tidy}
    roots = sorted({place[0] for place in placed.values() if place is not None})
    if not roots:
        raise SourceError(f"source {path}: is no data set of this layout; it must hold {_LAYOUT}")
    if len(roots) > 1:
        raise SourceError(
            f"source {path}: holds {len(roots)} data sets (in {', '.join(repr(root or '.') for root in roots[:3])}); "
            "give the path of one"
        )
    found = {}
    for name, place in placed.items():
        if place is None:
            continue
        _check_place(path, name, place[1])
        found["/".join(place[1])] = tidy[name]
    _check_complete(path, found)
    return found, len(contents) - len(found)


def _place(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Split a name into the folder that holds the layout and the path within it; None outside any layout."""
    parts = PurePosixPath(name).parts
    for depth, part in enumerate(parts[:-1]):
        if part in RAW_SPLITS:
            inner = parts[depth:]
            return ("/".join(parts[:depth]), inner) if len(inner) > 2 else None
    return None


def _check_place(path: Path, name: str, inner: tuple[str, ...]) -> None:
    if inner[1] not in CLASSES:
        raise SourceError(
            f"source {path}: {name} lies in a class folder {inner[1]!r}; the classes are {' and '.join(CLASSES)}, "
            "take the other folder out"
        )
    if len(inner) > 3:
        raise SourceError(f"source {path}: {name} lies in a folder below its class; put the pictures straight into it")


def _check_complete(path: Path, found: Iterable[str]) -> None:
    present = {name.rpartition("/")[0] for name in found}
    missing = [f"{split}/{label}" for split in RAW_SPLITS for label in CLASSES if f"{split}/{label}" not in present]
    if missing:
        raise SourceError(f"source {path}: {', '.join(missing)} missing or empty; the data set needs {_LAYOUT}")


def _is_clutter(name: str) -> bool:
    return any(part.startswith(".") or part in _CLUTTER for part in PurePosixPath(name).parts)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file below ``folder`` as (name from there, path); links to folders are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix(), path


def _reader(path: Path) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return path.read_bytes()
        except OSError as error:
            raise SourceError(f"source {path}: cannot be read ({error.strerror}); mend its permissions") from None

    return read


def _member_reader(archive: Archive, name: str) -> Callable[[], bytes]:
    return lambda: archive.read(name)

"""Where images come from: the drawn sample, Kaggle, a folder or a zip, each brought into one archive."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from gender_classifier.data.archive import Archive, split_archive_path, write_archive
from gender_classifier.data.contents import Contents, list_archive, list_folder
from gender_classifier.data.file_names import OTHER_FORMATS, find_suffix, has_image_suffix, list_first
from gender_classifier.data.names import SAMPLE, SAMPLE_NOTE
from gender_classifier.errors import SourceError
from gender_classifier.ingest.params import IngestParams
from gender_classifier.ingest.sample import draw_sample
from gender_classifier.ingest.source_layout import find_layout

KAGGLE_HANDLE = "cashutosh/gender-classification-dataset"


@dataclass(frozen=True)
class Snapshot:
    """What was taken.

    ``counts`` is images a class folder, ``ignored`` the files outside the layout, ``note`` what a reader of any
    figure must know of the data, ``remarks`` what was noticed about the source, a line each.
    """

    source: str
    kind: str
    num_images: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    sha256: str = ""
    note: str = ""
    remarks: tuple[str, ...] = ()


def ingest(params: IngestParams, archive_path: Path, *, base_dir: Path) -> Snapshot:
    """Read the source that ``params`` names once and write it as one archive.

    A source is ``sample``, ``kaggle``, a folder, a zip, or a folder in a zip (``faces.zip/copy``). Where several
    folders in it hold a data set, the path must name one; ``faces.zip/.`` names the one at the top.

    A snapshot holds every image or is not made: an image file, or any folder, that cannot be read is an error, since
    figures of a set that silently lacks images mislead. Other files are ignored and counted, whatever they are.

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
        return _store(Snapshot(SAMPLE, SAMPLE, note=SAMPLE_NOTE), drawn, total, archive_path)
    given = _fetch_kaggle(params.kaggle_version) if params.source == "kaggle" else params.source
    path, folder = split_archive_path(Path(os.path.realpath(base_dir / os.path.expanduser(given))))  # noqa: PTH111
    _check_source(path, archive_path)
    with ExitStack() as stack:
        kind, contents = _open(path, folder, stack)
        found = _find_images(contents, path / folder, at_top=given.rstrip("/").endswith("/."))
        kind = "kaggle" if params.source == "kaggle" else kind
        ignored = len(contents.problems) - len(found)
        remarks = _remark(contents, set(found.values()), path / folder)
        snapshot = Snapshot(params.source, kind, ignored=ignored, remarks=remarks)
        members = ((member, _read(path, contents, name)) for member, name in sorted(found.items()))
        return _store(snapshot, members, len(found), archive_path)


def _check_source(path: Path, archive_path: Path) -> None:
    if path == archive_path.resolve():
        raise SourceError(f"source {path}: is the pipeline's own archive, which ingest replaces; give another")
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise SourceError(
            f"source {path}: no such folder or file; choose sample, kaggle, or a path that exists"
        ) from None
    except OSError as error:
        raise SourceError(f"source {path}: cannot be read ({error.strerror}); check its permissions") from None


def _open(path: Path, folder: str, stack: ExitStack) -> tuple[str, Contents]:
    if path.is_dir():
        return "folder", list_folder(path)
    return "zip", list_archive(stack.enter_context(Archive(path)), folder)


def _find_images(contents: Contents, path: Path, *, at_top: bool) -> dict[str, str]:
    """Return the images of the data set: the name that each gets, to the one that it has."""
    names = contents.list_tidy()
    found = find_layout(names, path, at_top=at_top, identify=lambda root: os.path.realpath(path / root))
    contents.check(found.values())
    return found


def _read(path: Path, contents: Contents, name: str) -> bytes:
    try:
        return contents.read(name)
    except OSError as error:
        raise SourceError(
            f"source {path}: {list_first([name])} cannot be read ({error.strerror}); check its permissions"
        ) from None


def _remark(contents: Contents, taken: set[str], path: Path) -> tuple[str, ...]:
    """Return a line for each kind of file of which a reader should know; ``taken`` are in the snapshot."""
    tidy = contents.list_tidy()
    left_out = [name for name in tidy if name not in taken and has_image_suffix(name) and not contents.problems[name]]
    formats = [name for name in tidy if name in taken and find_suffix(name) in OTHER_FORMATS]
    named = ", ".join(sorted({OTHER_FORMATS[find_suffix(name)] for name in formats}))
    kinds = {
        f"images named as of a format that is not decoded ({named}), to be converted": formats,
        "images outside the class folders, left out": _drop_second_names(left_out, taken, path),
        "not readable, left out": contents.list_unreadable(),
        "links to a folder around them, not followed": contents.loops,
    }
    return tuple(f"{kind} ({len(names):,}): {list_first(names)}" for kind, names in kinds.items() if names)


def _drop_second_names(names: list[str], taken: Iterable[str], path: Path) -> list[str]:
    """Return those of ``names`` that are not an image of ``taken`` reached through a link to a folder."""
    if not names:
        return []
    real = {os.path.realpath(path / name) for name in taken}
    return [name for name in names if os.path.realpath(path / name) not in real]


def _fetch_kaggle(version: int) -> str:
    handle = f"{KAGGLE_HANDLE}/versions/{version}"
    try:
        import kagglehub  # noqa: PLC0415  a slow import that other sources do not need

        return str(kagglehub.dataset_download(handle))
    except ImportError:
        raise SourceError("source kaggle: the package kagglehub is not installed; pip install kagglehub") from None
    except Exception as error:  # requests', urllib3's and kagglehub's own, none of them promised
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SourceError(
            f"source kaggle: {handle} cannot be fetched ({type(error).__name__}: {reason}); download the zip by hand "
            f"from kaggle.com/datasets/{KAGGLE_HANDLE} and run: dvc exp run -S source=/path/to/archive.zip"
        ) from None


def _store(snapshot: Snapshot, members: Iterable[tuple[str, bytes]], total: int, archive_path: Path) -> Snapshot:
    """Write the archive and return ``snapshot`` with its figures."""
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
    counted_classes = dict(sorted(counts.items()))
    return replace(snapshot, num_images=num_images, counts=counted_classes, sha256=digest.hexdigest())

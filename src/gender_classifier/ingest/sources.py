"""Take a snapshot of a source as one archive: the drawn sample, Kaggle, a folder or a zip."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gender_classifier.common.files import hash_file
from gender_classifier.common.progress import show_progress
from gender_classifier.data.archive import write_archive
from gender_classifier.data.file_names import describe_value, list_first
from gender_classifier.data.labelled_files import LabelledImage, open_source
from gender_classifier.data.layouts.class_folders import Rules
from gender_classifier.data.layouts.naming import ClassNames, read_classes
from gender_classifier.data.names import CLASSES, RAW_SPLITS, SAMPLE, SAMPLE_NOTE
from gender_classifier.data.raw_table import RawRow, write_raw_table
from gender_classifier.errors import SourceError
from gender_classifier.ingest.params import IngestParams
from gender_classifier.ingest.sample import draw_sample

KAGGLE_HANDLE = "cashutosh/gender-classification-dataset"

_SPLITS = dict(zip(RAW_SPLITS, ("train", "test"), strict=True))


@dataclass(frozen=True)
class Snapshot:
    """Description of a snapshot.

    Attributes:
        source: as in ``params.yaml``.
        kind: ``sample``, ``kaggle``, ``folder`` or ``zip``.
        classes: in label order, to the names in the source that mean them.
        layout: in which the images were found, such as ``class folders``.
        num_images: of the archive.
        counts: images of each class in each split, by ``split/class``.
        ignored: number of files outside the layout.
        sha256: of the archive.
        note: what a reader of any metric must know of the data.
        remarks: what was noticed about the source, a line each.
    """

    source: str
    kind: str
    classes: ClassNames
    layout: str = ""
    num_images: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    ignored: int = 0
    sha256: str = ""
    note: str = ""
    remarks: tuple[str, ...] = ()


def ingest(params: IngestParams, archive_path: Path, table_path: Path, *, base_dir: Path) -> Snapshot:
    """Read the source that ``params`` names once; write its images as one archive, and a table of their labels.

    A source is ``sample``, ``kaggle`` or a path that :func:`~gender_classifier.data.labelled_files.open_source` opens.
    A snapshot holds every image or is not made: an image or folder that cannot be read is an error.

    Args:
        params: the source and its settings.
        archive_path: of the archive, written atomically.
        table_path: of the table (:mod:`~gender_classifier.data.raw_table`), written after the archive.
        base_dir: what a relative source is relative to.

    Raises:
        SourceError: the source is missing, cannot be read, or is not laid out as a data set.
        ArchiveError: it is a zip file that must not be read.
    """
    if params.source == SAMPLE:
        total = params.sample_train + params.sample_val
        drawn = draw_sample(params.sample_seed, num_train=params.sample_train, num_val=params.sample_val)
        images = ((_describe_drawn(member), data) for member, data in drawn)
        classes = {label: [label] for label in CLASSES}
        return _store(Snapshot(SAMPLE, SAMPLE, classes, note=SAMPLE_NOTE), images, total, archive_path, table_path)
    if "://" in params.source:
        raise SourceError(
            f"source: {describe_value(params.source)}: is an address, and a path is needed; fetch it first with "
            "`dvc import-url ADDRESS faces.zip`, then set source to faces.zip (docs/data.md)"
        )
    is_kaggle = params.source == "kaggle"
    given = _fetch_kaggle(params.kaggle_version) if is_kaggle else os.path.expanduser(params.source)  # noqa: PTH111
    path = os.path.join(base_dir, given)  # noqa: PTH118  keeps the `/.` that names the data set at the top
    if os.path.realpath(path) == os.path.realpath(archive_path):
        raise SourceError(f"source: {path}: is the pipeline's own archive, which ingest replaces; give another")
    rules = Rules(
        name="source",
        classes=read_classes(params.classes),
        fixed=False,
        format=params.format,
        columns=params.columns,
        refuses_strays=False,
        refuses_unreadable=True,  # metrics of a set that silently lacks images mislead
        if_missing="choose sample, kaggle, or a path that exists",
    )
    with open_source(path, rules) as source:
        kind = "kaggle" if is_kaggle else source.kind
        snapshot = Snapshot(
            params.source, kind, source.classes, source.layout, ignored=source.ignored, remarks=source.remarks
        )
        labels = list(source.classes)
        rows = sorted(
            (
                (RawRow(image.member, labels[image.label], image.split, image.group, image.attributes), image)
                for image in source.images
            ),
            key=lambda pair: pair[0].member,
        )
        images = ((row, _read(path, image)) for row, image in rows)
        return _store(snapshot, images, len(rows), archive_path, table_path, source.attributes)


def _describe_drawn(member: str) -> RawRow:
    folder, label, _ = member.split("/")
    return RawRow(member, label, _SPLITS[folder])


def _read(path: str, image: LabelledImage) -> bytes:
    try:
        return image.read()
    except OSError as error:
        raise SourceError(
            f"source: {path}: {list_first([image.name])} cannot be read ({error.strerror}); check its permissions"
        ) from None


def _fetch_kaggle(version: int) -> str:
    handle = f"{KAGGLE_HANDLE}/versions/{version}"
    try:
        import kagglehub  # noqa: PLC0415  slow to import, and other sources do not need it

        return str(kagglehub.dataset_download(handle))
    except ImportError:
        raise SourceError("source: kaggle: the package kagglehub is not installed; pip install kagglehub") from None
    except Exception as error:  # those of requests, urllib3 and kagglehub; none is documented
        reason = (str(error).splitlines() or [""])[0][:160]
        raise SourceError(
            f"source: kaggle: {handle} cannot be fetched ({type(error).__name__}: {reason}); download the zip by hand "
            f"from kaggle.com/datasets/{KAGGLE_HANDLE} and run: dvc exp run -S source=/path/to/archive.zip"
        ) from None


def _store(
    snapshot: Snapshot,
    images: Iterable[tuple[RawRow, bytes]],
    total: int,
    archive_path: Path,
    table_path: Path,
    attributes: Sequence[str] = (),
) -> Snapshot:
    """Write the archive and the table; return ``snapshot`` with its counts and digest."""
    rows: list[RawRow] = []

    def named() -> Iterator[tuple[str, bytes]]:
        for row, data in show_progress(images, total=total, name="ingest"):
            rows.append(row)
            yield row.member, data

    num_images = write_archive(archive_path, named())
    write_raw_table(table_path, attributes, rows)
    counts = Counter(f"{row.split}/{row.label}" for row in rows)
    digest = hash_file(archive_path)
    return replace(snapshot, num_images=num_images, counts=dict(sorted(counts.items())), sha256=digest)

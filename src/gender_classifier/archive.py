"""The raw archive: one stored zip whose bytes depend on its members alone."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

from gender_classifier.errors import ArchiveError
from gender_classifier.files import replacing

MAX_MEMBER_BYTES = 64 * 2**20
"""No picture of a face is larger; what is, is a decompression bomb."""

MAX_TOTAL_BYTES = 64 * 2**30

_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    """Write (name, content) pairs, in strictly rising order of names, into one stored zip.

    Members are written as they come, so memory does not grow with their number. Equal members give equal bytes.

    Returns:
        The number of members.

    Raises:
        ArchiveError: the names are not in order, or one stands twice.
    """
    last, count = "", 0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, data in members:
            if name <= last:
                raise ArchiveError(f"{path}: member {name!r} comes after {last!r}; names must rise and differ")
            info = zipfile.ZipInfo(name, _DATE)
            info.create_system = 3  # Unix, on every system
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
            last, count = name, count + 1
    return count


class Archive:
    """A zip file opened for reading; every member's name has been checked to stay inside it.

    Raises:
        ArchiveError: on opening, when it is no whole zip file or has a member that must not be read.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` and check its directory; no member is read yet."""
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError:
            raise ArchiveError(f"{path}: no such file; mend the path, or run `dvc repro`") from None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise ArchiveError(f"{path}: not a whole zip file ({error}); download or make it again") from None
        try:
            self._infos = {info.filename: info for info in _check_members(path, self._zip.infolist())}
        except ArchiveError:
            self._zip.close()
            raise
        self.members = tuple(sorted(self._infos))

    def __enter__(self) -> Archive:
        """Return itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the file."""
        self._zip.close()

    def read(self, name: str) -> bytes:
        """Return the content of one member.

        Raises:
            ArchiveError: the member is absent or damaged.
        """
        info = self._infos.get(name)
        if info is None:
            raise ArchiveError(f"{self.path}: has no member {name!r}; run `dvc repro` to bring both into step")
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise ArchiveError(f"{self.path}: member {name!r} is damaged ({error}); get the archive again") from None
        if len(data) != info.file_size:
            raise ArchiveError(
                f"{self.path}: member {name!r} has {len(data)} bytes instead of {info.file_size}; get the archive again"
            )
        return data


def _check_members(path: Path, infos: Sequence[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    files = [info for info in infos if not info.filename.endswith("/")]
    seen: set[str] = set()
    for info in files:
        _check_member(path, info)
        if info.filename in seen:
            raise ArchiveError(f"{path}: member {info.filename!r} stands in it twice; make the archive again")
        seen.add(info.filename)
    total = sum(info.file_size for info in files)
    if total > MAX_TOTAL_BYTES:
        raise ArchiveError(
            f"{path}: would unpack to {total:,} bytes, more than {MAX_TOTAL_BYTES:,}; it is no data set of face crops"
        )
    return files


def _check_member(path: Path, info: zipfile.ZipInfo) -> None:
    # zipfile cuts names at a NUL and turns the local separator into '/': look at what the file really says.
    name = info.orig_filename
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name or ":" in parts[0]:
        raise ArchiveError(f"{path}: member {name!r} points outside the archive; get it from a source you trust")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise ArchiveError(f"{path}: member {name!r} is a symbolic link; put the file itself into the archive")
    if info.flag_bits & 0x1:
        raise ArchiveError(f"{path}: member {name!r} is encrypted; make the archive without a password")
    if info.file_size > MAX_MEMBER_BYTES:
        raise ArchiveError(
            f"{path}: member {name!r} would unpack to {info.file_size:,} bytes, more than {MAX_MEMBER_BYTES:,}; "
            "no face crop is that large, take it out"
        )

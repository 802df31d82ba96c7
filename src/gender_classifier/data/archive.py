"""Zip archives: writing the raw archive reproducibly, and reading untrusted ones."""

import copy
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from gender_classifier.common.files import replacing
from gender_classifier.data.file_names import escape_name, list_first
from gender_classifier.data.folders import MAX_FILE_BYTES
from gender_classifier.data.formats import deflate64
from gender_classifier.data.formats.zip_diagnosis import explain_not_a_zip
from gender_classifier.data.formats.zip_ranges import MAX_DIRECTORY_BYTES, find_shared, measure_directory
from gender_classifier.errors import ArchiveError

MAX_MEMBER_BYTES = MAX_FILE_BYTES
"""A larger member is refused as a decompression bomb."""

MAX_TOTAL_BYTES = 64 * 2**30

_MAX_NAME_BYTES = 2**16 - 1  # a zip has 16 bits for the length
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold
_UNIX = 3

_FILE_TYPES = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip

# zipfile unpacks other methods without a limit: 574 bytes of bzip2 become 1.2 GB before the size is checked.
_READABLE_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, deflate64.METHOD})
_METHODS = {
    1: "Shrink", 6: "Implode", 8: "Deflate", 9: "Deflate64", 10: "PKWARE Implode", 12: "bzip2", 14: "LZMA",
    20: "Zstandard", 93: "Zstandard", 94: "MP3", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES",
}  # fmt: skip

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError)


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    """Write (name, content) pairs, sorted by name, into an uncompressed zip.

    Members are written as they come, so memory does not grow with their number. Equal members give equal bytes.
    :class:`Archive` reads the same members under the same names.

    Returns:
        The number of members.

    Raises:
        ArchiveError: names are not sorted or not unique, or Archive would refuse a member.
    """
    last, count, total = "", 0, 0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, data in members:
            if name <= last:
                raise ArchiveError(f"{path}: member {name!r} comes after {last!r}; names must be unique and sorted")
            info = _build_info(path, name, len(data))
            total += len(data)
            _check_total(path, total)
            archive.writestr(info, data)
            last, count = name, count + 1
    return count


class Archive:
    """A zip file opened for reading.

    Member names are normalized: ``/`` between non-empty parts, escaped by
    :func:`~gender_classifier.data.file_names.escape_name`. A member that must not be read fails when it is read or
    checked; the others remain readable.

    Attributes:
        members: names of all files in it, sorted.

    Raises:
        ArchiveError: on opening, if it is not a complete zip file.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` and read its directory, but no member."""
        self.path = path
        self._zip = _open_zip(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._others: dict[str, list[zipfile.ZipInfo]] = {}  # with the same name
        infos = self._zip.infolist()
        self._shared = find_shared(infos, self._zip.start_dir)
        for info in infos:
            if _normalize_separators(info).endswith("/") or _find_type(info) == stat.S_IFDIR:
                continue
            name = _name_member(info)
            if self._infos.setdefault(name, info) is not info:
                self._others.setdefault(name, []).append(info)
        self.members = tuple(sorted(self._infos))

    def __enter__(self) -> "Archive":
        """Return itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the file."""
        self._zip.close()

    def list_below(self, folder: str) -> dict[str, str]:
        """Return the members below ``folder``, or all for an empty one: relative name to member name.

        Raises:
            ArchiveError: there is no such folder.
        """
        prefix = escape_name(folder).strip("/") + "/" if folder else ""
        found = {name[len(prefix) :]: name for name in self.members if name.startswith(prefix)}
        if folder and not found:
            tops = sorted({name.partition("/")[0] + "/" for name in self.members if "/" in name})
            raise ArchiveError(
                f"{self.path}: has no folder {folder!r}; at its top are {list_first(tops) or 'no folders'}"
            )
        return found

    def find_problem(self, name: str) -> str:
        """Return why a member must not be read, to follow its name in a sentence; an empty text if it may."""
        info = self._infos[name]
        for other in self._others.get(name, ()):
            if other.orig_filename != info.orig_filename:
                both = " and ".join(map(repr, (info.orig_filename, other.orig_filename)))
                return f"is the name of more than one member, {both}; rename one of them"
            if (other.CRC, other.file_size) != (info.CRC, info.file_size):
                return _TWICE
        if id(info) in self._shared:
            with_what = repr(self._shared[id(info)]) if self._shared[id(info)] else "the archive's directory"
            return f"shares bytes with {with_what}; get the archive from a source you trust"
        return next(_find_problems(info), "")

    def is_regular(self, name: str) -> bool:
        """Return True for a file, False for a link or device."""
        return _find_type(self._infos[name]) not in _FILE_TYPES

    def check(self, names: Iterable[str] | None = None) -> None:
        """Refuse members that must not be read, alone or together.

        Args:
            names: members to be read; all by default.

        Raises:
            ArchiveError: names the first such member, or the total that is too large.
        """
        checked = list(self.members if names is None else names)
        for name in checked:
            self._check(name)
        self.check_total(checked)

    def check_total(self, names: Iterable[str]) -> None:
        """Refuse members whose total unpacked size is too large.

        Raises:
            ArchiveError: names the total.
        """
        _check_total(self.path, sum(self._infos[name].file_size for name in names))

    def read(self, name: str) -> bytes:
        """Return the content of one member.

        Raises:
            ArchiveError: the member is missing or damaged, or must not be read.
        """
        info = self._infos.get(name)
        if info is None:
            raise ArchiveError(f"{self.path}: has no member {name!r}; run `dvc repro` to update both")
        self._check(name)
        try:
            data = self._read(info)
            if any(self._read(other) != data for other in self._others.get(name, ())):
                raise ArchiveError(f"{self.path}: member {name!r} {_TWICE}")
        except ArchiveError:
            raise
        except NotImplementedError as error:
            raise ArchiveError(f"{self.path}: member {name!r} cannot be read ({error}); {_REPACK}") from None
        except Exception as error:  # each decompressor raises its own type
            raise ArchiveError(f"{self.path}: member {name!r} is damaged ({error}); get the archive again") from None
        if len(data) != info.file_size:
            raise ArchiveError(
                f"{self.path}: member {name!r} has {len(data)} bytes instead of {info.file_size}; get the archive again"
            )
        return data

    def _check(self, name: str) -> None:
        problem = self.find_problem(name)
        if problem:
            raise ArchiveError(f"{self.path}: member {name!r} {problem}")

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        if info.compress_type != deflate64.METHOD:
            with self._zip.open(info) as file:
                return file.read(info.file_size + 1)
        packed = copy.copy(info)  # read as stored: zipfile does not know Deflate64
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
        del packed.CRC  # belongs to the unpacked content
        with self._zip.open(packed) as file:
            data = deflate64.inflate(file, info.file_size)
        if zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return data


def split_archive_path(path: Path) -> tuple[Path, str]:
    """Split a path into an archive, such as ``faces.zip/copy``, into the file and the folder in it.

    Any other path is returned unchanged, with an empty folder.
    """
    if os.path.lexists(path):
        return path, ""
    for parent in path.parents:
        if os.path.isfile(parent):  # noqa: PTH113  False also without permission
            return parent, path.relative_to(parent).as_posix()
    return path, ""


_TWICE = "is in the archive more than once, with different contents; keep one of them"
_REPACK = "unpack the archive with a program that reads it (such as 7-Zip) and give the folder"


def _open_zip(path: Path) -> zipfile.ZipFile:
    if path.exists() and not path.is_file():
        raise ArchiveError(f"{path}: is not a regular file; give a zip file or a folder")
    try:
        with path.open("rb") as file:
            size = measure_directory(file)
        if size > MAX_DIRECTORY_BYTES:
            raise ArchiveError(
                f"{path}: its directory has {size:,} bytes, more than {MAX_DIRECTORY_BYTES:,}; split it into several"
            )
        return zipfile.ZipFile(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ArchiveError(f"{path}: no such file; check the path, or run `dvc repro`") from None
    except (*_DAMAGED, NotImplementedError) as error:
        raise ArchiveError(explain_not_a_zip(path, error)) from None


def _build_info(path: Path, name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = _UNIX  # not the current system, for equal bytes
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    problem = next(_find_problems(info), "")
    if not problem and _name_member(info) != name:
        problem = f"would be read as {_name_member(info)!r}; give it that name"
    if problem:
        raise ArchiveError(f"{path}: member {name!r} {problem}")
    return info


def _check_total(path: Path, total: int) -> None:
    if total > MAX_TOTAL_BYTES:
        raise ArchiveError(
            f"{path}: would unpack to {total:,} bytes, more than {MAX_TOTAL_BYTES:,}; it is no data set of face crops"
        )


def _normalize_separators(info: zipfile.ZipInfo) -> str:
    """Return a member's name with ``/`` as the only separator.

    Windows programs may write backslashes instead. In a name from Unix that has both, they belong to file names.
    """
    # The name as stored: zipfile cuts names at a NUL and replaces the local separator.
    name = info.orig_filename
    return name if info.create_system == _UNIX and "/" in name else name.replace("\\", "/")


def _split_name(info: zipfile.ZipInfo) -> list[str]:
    return [part for part in _normalize_separators(info).split("/") if part not in ("", ".")]


def _name_member(info: zipfile.ZipInfo) -> str:
    return escape_name("/".join(_split_name(info))) or "."


def _find_type(info: zipfile.ZipInfo) -> int:
    return stat.S_IFMT(info.external_attr >> 16)


def _find_problems(info: zipfile.ZipInfo) -> Iterator[str]:
    parts, file_type = _split_name(info), _FILE_TYPES.get(_find_type(info))
    if _points_outside(_normalize_separators(info), parts):
        yield "points outside the archive; get it from a source you trust"
    if ".." in parts:
        yield "has '..' in its path; rename it"
    if not parts:
        yield "has no name; make the archive again"
    if "\0" in info.orig_filename:
        yield "has a NUL character in its name; make the archive again"
    if len(info.orig_filename.encode("utf-8", "replace")) > _MAX_NAME_BYTES:
        yield f"has a name longer than {_MAX_NAME_BYTES:,} bytes; shorten it"
    if file_type:
        yield f"is {file_type}; put the file itself into the archive"
    if info.flag_bits & 0x1:
        yield "is encrypted; make the archive without a password"
    if info.compress_type == deflate64.METHOD and not deflate64.is_available():
        yield f"is compressed with Deflate64, which needs the package inflate64; pip install inflate64, or {_REPACK}"
    if info.compress_type not in _READABLE_METHODS:
        method = _METHODS.get(info.compress_type, "unknown")
        yield f"is compressed with {method} (method {info.compress_type}), which is not supported; {_REPACK}"
    if info.file_size > MAX_MEMBER_BYTES:
        yield (
            f"would unpack to {info.file_size:,} bytes, more than {MAX_MEMBER_BYTES:,}; no face crop is that large, "
            "take it out"
        )


def _points_outside(name: str, parts: list[str]) -> bool:
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            return True
    return name.startswith("/") or bool(parts and re.fullmatch("[A-Za-z]:", parts[0]))

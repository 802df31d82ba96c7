"""Zip archives: the raw one, whose bytes depend on its members alone, and those that people give."""

from __future__ import annotations

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

from gender_classifier.common.file_names import OTHER_ARCHIVES, escape_name, find_suffix, list_first
from gender_classifier.common.files import replacing
from gender_classifier.data import deflate64
from gender_classifier.errors import ArchiveError

MAX_MEMBER_BYTES = 64 * 2**20
"""No picture of a face is larger; what is, is a decompression bomb."""

MAX_TOTAL_BYTES = 64 * 2**30

_MAX_NAME_BYTES = 2**16 - 1  # a zip has 16 bits for the length
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can hold
_UNIX = 3

_FILE_TYPES = {
    stat.S_IFLNK: "a symbolic link", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device", stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}  # fmt: skip

_READABLE_METHODS = frozenset(
    {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, deflate64.METHOD}
    | {getattr(zipfile, "ZIP_ZSTANDARD", zipfile.ZIP_STORED)}  # Python 3.14
)
_METHODS = {
    1: "Shrink", 6: "Implode", 8: "Deflate", 9: "Deflate64", 10: "PKWARE Implode", 12: "bzip2", 14: "LZMA",
    20: "Zstandard", 93: "Zstandard", 94: "MP3", 95: "xz", 96: "JPEG", 97: "WavPack", 98: "PPMd", 99: "AES",
}  # fmt: skip

# What was given in place of a zip, by its first bytes.
_SIGNATURES = (
    (b"\x1f\x8b", "a gzip file (.gz, .tar.gz)"),
    (b"BZh", "a bzip2 file (.bz2, .tar.bz2)"),
    (b"\xfd7zXZ\0", "an xz file (.xz, .tar.xz)"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file (.zst, .tar.zst)"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
)
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype\s+html|html|head|\?xml)", re.IGNORECASE)
_LFS_POINTER = b"version https://git-lfs"

_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError)


def write_archive(path: Path, members: Iterable[tuple[str, bytes]]) -> int:
    """Write (name, content) pairs, in strictly rising order of names, into one stored zip.

    Members are written as they come, so memory does not grow with their number. Equal members give equal bytes.
    What is written is what :class:`Archive` reads, under the same names.

    Returns:
        The number of members.

    Raises:
        ArchiveError: the names are not in order, one occurs twice, or a member is one that Archive refuses.
    """
    last, count, total = "", 0, 0
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name, data in members:
            if name <= last:
                raise ArchiveError(f"{path}: member {name!r} comes after {last!r}; names must rise and differ")
            info = _build_info(path, name, len(data))
            total += len(data)
            _check_total(path, total)
            archive.writestr(info, data)
            last, count = name, count + 1
    return count


class Archive:
    """A zip file opened for reading.

    A member has a name with ``/`` between its parts, without empty ones, escaped by
    :func:`~gender_classifier.common.file_names.escape_name`. One that must not be read harms none of the others: only
    reading it, or checking it, fails.

    Attributes:
        members: names of all files in it, sorted.

    Raises:
        ArchiveError: on opening, when it is no whole zip file.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path`` and read its directory; no member is read yet."""
        self.path = path
        self._zip = _open_zip(path)
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._conflicting: set[str] = set()
        for info in self._zip.infolist():
            if _normalize_separators(info).endswith("/") or _find_type(info) == stat.S_IFDIR:
                continue
            name = _name_member(info)
            first = self._infos.setdefault(name, info)
            if (first.CRC, first.file_size) != (info.CRC, info.file_size):
                self._conflicting.add(name)
        self.members = tuple(sorted(self._infos))

    def __enter__(self) -> Archive:
        """Return itself."""
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        """Close the file."""
        self._zip.close()

    def list_below(self, folder: str) -> dict[str, str]:
        """Return the members below ``folder``, all for an empty one: the name from there to the member's.

        Raises:
            ArchiveError: nothing lies below it.
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
        """Return why a member must not be read, to follow its name in a sentence; an empty text if it may be."""
        if name in self._conflicting:
            return "is in the archive more than once, with different contents; keep one of them"
        return _find_problem(self._infos[name])

    def is_regular(self, name: str) -> bool:
        """Return True if a member is a file, not a link or device."""
        return _find_type(self._infos[name]) not in _FILE_TYPES

    def check(self, names: Iterable[str] | None = None) -> None:
        """Refuse members that must not be read, alone or together.

        Args:
            names: of members that will be read; all by default.

        Raises:
            ArchiveError: names the first that must not be read, or gives the total that is too large.
        """
        total = 0
        for name in self.members if names is None else names:
            self._check(name)
            total += self._infos[name].file_size
        _check_total(self.path, total)

    def read(self, name: str) -> bytes:
        """Return the content of one member.

        Raises:
            ArchiveError: the member is absent or damaged, or must not be read.
        """
        info = self._infos.get(name)
        if info is None:
            raise ArchiveError(f"{self.path}: has no member {name!r}; run `dvc repro` to bring both into step")
        self._check(name)
        try:
            data = self._read(info)
        except NotImplementedError as error:
            raise ArchiveError(f"{self.path}: member {name!r} cannot be read ({error}); {_REPACK}") from None
        except Exception as error:  # each decompressor raises its own, such as lzma.LZMAError
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
        packed = copy.copy(info)  # as if it were stored, to get at what zipfile cannot unpack
        packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
        del packed.CRC  # that of the unpacked content
        with self._zip.open(packed) as file:
            data = deflate64.inflate(file, info.file_size)
        if zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("wrong checksum")
        return data


def split_archive_path(path: Path) -> tuple[Path, str]:
    """Split a path that goes on inside an archive, such as ``faces.zip/copy``, into the file and the folder in it.

    Any other path is returned as it is, with an empty folder.
    """
    if os.path.lexists(path):
        return path, ""
    for parent in path.parents:
        if os.path.isfile(parent):  # noqa: PTH113  False also where it cannot be asked
            return parent, path.relative_to(parent).as_posix()
    return path, ""


_REPACK = "unpack the archive with a program that reads it (such as 7-Zip) and give the folder"


def _open_zip(path: Path) -> zipfile.ZipFile:
    if path.exists() and not path.is_file():
        raise ArchiveError(f"{path}: is not a regular file; give a zip file or a folder")
    try:
        return zipfile.ZipFile(path)
    except (FileNotFoundError, NotADirectoryError):
        raise ArchiveError(f"{path}: no such file; check the path, or run `dvc repro`") from None
    except (*_DAMAGED, NotImplementedError) as error:
        raise ArchiveError(_explain_not_a_zip(path, error)) from None


def _explain_not_a_zip(path: Path, error: Exception) -> str:
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as failure:
        return f"{path}: cannot be read ({failure.strerror}); check its permissions"
    kinds = [kind for signature, kind in _SIGNATURES if start.startswith(signature)]
    if start[257:262] == b"ustar" or (not kinds and start and find_suffix(path.name) in OTHER_ARCHIVES[:1]):
        kinds = ["a tar archive"]
    if kinds:
        return f"{path}: is {kinds[0]}, not a zip; unpack it and give the folder"
    if _WEB_PAGE.match(start):
        return f"{path}: is a web page, not a zip, as links that need a login give; download the file in a browser"
    if start.startswith(_LFS_POINTER):
        return f"{path}: is a Git LFS pointer, not the zip itself; run `git lfs pull`"
    if not start:
        reason = "it is empty"
    elif isinstance(error, UnicodeDecodeError):
        reason = "the name of a member is marked as UTF-8 and is not"
    elif start.startswith(b"PK\x03\x04") and "not a zip" in str(error):
        reason = "its end is missing, as after an interrupted download"
    else:
        reason = str(error)
    return f"{path}: not a whole zip file ({reason}); download or make it again"


def _build_info(path: Path, name: str, size: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system = _UNIX  # on every system
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.file_size = size
    problem = _find_problem(info)
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
    """Return a member's name with the backslashes that separate folders as slashes.

    Windows programs write them in place of slashes; on Unix a name with both has a backslash in a file's name.
    """
    # What the file really says: zipfile cuts names at a NUL and turns the local separator into '/'.
    name = info.orig_filename
    return name if info.create_system == _UNIX and "/" in name else name.replace("\\", "/")


def _split_name(info: zipfile.ZipInfo) -> list[str]:
    return [part for part in _normalize_separators(info).split("/") if part not in ("", ".")]


def _name_member(info: zipfile.ZipInfo) -> str:
    return escape_name("/".join(_split_name(info))) or "."


def _find_type(info: zipfile.ZipInfo) -> int:
    return stat.S_IFMT(info.external_attr >> 16)


def _find_problem(info: zipfile.ZipInfo) -> str:
    return next(_find_problems(info), "")


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

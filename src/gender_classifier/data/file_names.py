"""File names: image suffixes, clutter, escaping, and names in messages."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath, PurePosixPath, PureWindowsPath
from urllib.parse import unquote

from gender_classifier.common.credentials import hide_in_addresses
from gender_classifier.common.terminal import printable
from gender_classifier.data.names import KAGGLE, SAMPLE

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
"""Suffixes of the formats that are decoded, in lower case."""

_FORMATS = {
    "HEIC": ".heic .heics .heif .heifs .hif",
    "AVIF": ".avif .avifs",
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2 .j2k .j2c .jpc .jpf .jpx .jpm",
    "JPEG XR": ".jxr .hdp .wdp",
    "camera raw": (
        ".3fr .arw .cr2 .cr3 .crw .dcr .dng .erf .iiq .kdc .mef .mrw .nef .nrw .orf .pef .raf .raw .rw2 .rwl .sr2 .srf "
        ".srw .x3f"
    ),
    "Photoshop": ".psd .psb",
    "GIMP": ".xcf",
    "SVG": ".svg .svgz",
    "icon": ".ico .icns .cur",
    "Targa": ".tga",
    "Netpbm": ".pbm .pgm .pnm .ppm .pam",
    "PCX": ".pcx",
    "DDS": ".dds",
    "OpenEXR": ".exr",
    "Radiance HDR": ".hdr",
    "PostScript": ".eps",
    "animated PNG": ".apng",
    "multi-picture": ".mpo",
}

OTHER_FORMATS: Mapping[str, str] = {
    suffix: format_name for format_name, suffixes in _FORMATS.items() for suffix in suffixes.split()
}
"""Suffix, in lower case, to the name of an image format that is not decoded but reported."""

OTHER_ARCHIVES = (".tar", ".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".7z", ".rar")
"""Suffixes of archives and compressed files that are not read."""

_CLUTTER = frozenset(
    {"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "icon\uf00d", "@eadir", "$recycle.bin"}
    | {"system volume information", "lost+found"}
)
_UNPORTABLE = re.compile("[\ud800-\udfff\\\\\0]")


def find_suffix(name: str) -> str:
    """Return the suffix of ``name`` in lower case, with its dot; an empty text without one."""
    last = name.rpartition("/")[2]
    place = last.rfind(".")
    return last[place:].lower() if 0 < place < len(last) - 1 else ""


def has_image_suffix(name: str) -> bool:
    """Return True if ``name`` has the suffix of an image format, decoded or not."""
    suffix = find_suffix(name)
    return suffix in IMAGE_SUFFIXES or suffix in OTHER_FORMATS


def may_be_image(name: str) -> bool:
    """Return True for the name of an image, decoded or not, and for one without a suffix."""
    return has_image_suffix(name) or not find_suffix(name)


# JPEG, PNG, GIF, BMP, WebP. Not TIFF: with the suffix of a camera raw format it holds little but a preview.
_DECODED_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")


def find_other_format(name: str, data: bytes) -> str | None:
    """Return the name of a file's format if its suffix is one that is not decoded, and its content agrees; else None.

    Args:
        name: name of the file.
        data: its content, or the first 8 bytes.
    """
    return None if data.startswith(_DECODED_STARTS) else OTHER_FORMATS.get(find_suffix(name))


def is_clutter(name: str) -> bool:
    """Return True if a part of the path ``name`` is hidden, or a file that operating systems leave in folders."""
    parts = [part for part in name.split("/") if part not in ("", ".", "..")]
    return any(part.startswith(".") or part.lower() in _CLUTTER for part in parts)


def escape_name(name: str) -> str:
    r"""Percent-escape the characters of ``name`` that zip, CSV or JSON files do not store portably.

    Bytes that are not UTF-8 (surrogates in Python) become ``%FF``, a backslash ``%5C``, a NUL ``%00``. All other
    characters stay, ``%`` too: escaping twice changes nothing.
    """
    return _UNPORTABLE.sub(_escape, name)


def find_collision(names: Iterable[str]) -> tuple[str, str] | None:
    """Return the first two different names that :func:`escape_name` makes equal, or None."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(escape_name(name), name)
        if other != name:
            return other, name
    return None


def list_first(names: Iterable[str], most: int = 5) -> str:
    """Return the first ``most`` names and the number of others, on one line."""
    listed = list(names)
    more = f" and {len(listed) - most:,} more" if len(listed) > most else ""
    return ", ".join(map(printable, listed[:most])) + more


def describe_value(value: object) -> str:
    """Return ``value`` as text without private parts: the last part of a full path, an address without its password.

    A relative path is kept. An absolute path that ends like the name of another source is marked, ``…/kaggle``. Of a
    folder in a zip, ``/home/me/faces.zip/copy``, the zip's name is kept too: ``faces.zip/copy``.
    """
    text = str(value)
    if not isinstance(value, str):
        return text
    path = _as_full_path(text)
    if path is None:
        return hide_in_addresses(text)
    parts = [part for part in path.parts if part != path.anchor]
    zips = [place for place, part in enumerate(parts) if part.lower().endswith(".zip")]
    shown = "/".join(parts[zips[0] if zips else -1 :])
    return f"…/{shown}" if shown in (SAMPLE, KAGGLE) else shown


def _as_full_path(text: str) -> PurePath | None:
    if text.startswith("file:"):
        text = unquote(text.removeprefix("file:").removeprefix("//"))
    if text.startswith(("/", "~")):
        return PurePosixPath(text)
    windows = PureWindowsPath(text)
    return windows if windows.is_absolute() or (windows.drive and "\\" in text) else None


def _escape(match: re.Match[str]) -> str:
    char = match[0]
    # On Windows, surrogates may not stand for bytes.
    data = char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass")
    return "".join(f"%{byte:02X}" for byte in data)

"""Explain why a file is not a zip."""

import re
from pathlib import Path

from gender_classifier.data.file_names import OTHER_ARCHIVES, find_suffix

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


def explain_not_a_zip(path: Path, error: Exception) -> str:
    """Return a message that says what ``path`` is, after zipfile raised ``error``, and what to do."""
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

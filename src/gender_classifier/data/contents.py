"""What a folder or a zip holds, seen alike: names, what cannot be read and why, and a way to read the rest."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.data.archive import Archive
from gender_classifier.data.file_names import find_suffix, has_image_suffix, is_clutter, list_first
from gender_classifier.data.folders import list_files, read_file
from gender_classifier.errors import SourceError


@dataclass(frozen=True)
class Contents:
    """The files of a folder or zip.

    Attributes:
        problems: path of each file from there, with ``/``, to why it cannot be read; an empty text if it can.
        read: returns the content of one of them; raises OSError or ArchiveError.
        check: refuses the named ones where they cannot be read, with a SourceError or ArchiveError.
        never_images: links and devices of a zip, which hold no image whatever they are called.
        loops: links to a folder around them, which were not followed.
    """

    problems: Mapping[str, str]
    read: Callable[[str], bytes]
    check: Callable[[Iterable[str]], None]
    never_images: frozenset[str] = frozenset()
    loops: Sequence[str] = ()

    def list_tidy(self) -> list[str]:
        """Return the files, sorted, but for clutter and for what neither can be read nor has the name of an image."""
        return [name for name in sorted(self.problems) if not is_clutter(name) and not self._is_bystander(name)]

    def list_unreadable(self) -> list[str]:
        """Return what cannot be read, sorted, each name with the reason; no clutter."""
        found = [name for name, problem in sorted(self.problems.items()) if problem and not is_clutter(name)]
        return [f"{name} ({self.problems[name].partition(';')[0]})" for name in found]

    def _is_bystander(self, name: str) -> bool:
        if not self.problems[name]:
            return False
        return name in self.never_images or not may_be_image(name)


def may_be_image(name: str) -> bool:
    """Return True for the name of an image, of whatever format, and for one without a suffix."""
    return has_image_suffix(name) or not find_suffix(name)


def list_folder(path: Path) -> Contents:
    """List the files below a folder.

    Raises:
        SourceError: a folder cannot be listed, so that nobody knows what it holds.
    """
    listing, root = list_files(path), os.path.realpath(path)
    closed = {name: reason for name, reason in listing.closed.items() if not is_clutter(name) or name == "."}
    if closed:
        raise SourceError(_explain(path, closed, "folders"))

    def check(names: Iterable[str]) -> None:
        problems = {name: listing.files[name] for name in names if listing.files[name]}
        if problems:
            raise SourceError(_explain(path, problems, "files"))

    return Contents(listing.files, lambda name: read_file(path / name, root), check, loops=listing.loops)


def list_archive(archive: Archive, folder: str = "") -> Contents:
    """List the members of an archive below one of its folders.

    Raises:
        ArchiveError: it has no such folder.
    """
    members = archive.list_below(folder)
    return Contents(
        {name: archive.find_problem(member) for name, member in members.items()},
        lambda name: archive.read(members[name]),
        lambda names: archive.check(members[name] for name in names),
        frozenset(name for name, member in members.items() if not archive.is_regular(member)),
    )


def _explain(path: Path, problems: Mapping[str, str], what: str) -> str:
    listed = list_first(f"{name} ({problem})" for name, problem in sorted(problems.items()))
    return (
        f"{path}: {len(problems):,} of its {what} cannot be read: {listed}; check their permissions and where links "
        "lead, or remove them"
    )

"""The files of a folder or zip under one interface: names, why a file cannot be read, and a way to read the others."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gender_classifier.data.archive import Archive
from gender_classifier.data.file_names import (
    OTHER_FORMATS,
    find_suffix,
    has_image_suffix,
    is_clutter,
    list_first,
    may_be_image,
)
from gender_classifier.data.folders import list_files, read_file
from gender_classifier.errors import SourceError


@dataclass(frozen=True)
class Contents:
    """The files of a folder or zip.

    Attributes:
        path: of the folder, or of the zip and the folder in it.
        problems: path of each file from there, separated by ``/``, to why it cannot be read; an empty text if it can.
        read: returns the content of one of them; raises OSError or ArchiveError.
        check: refuses the named ones where they cannot be read, with a SourceError or ArchiveError.
        never_images: links and devices of a zip, which hold no image whatever they are called.
        loops: links to a folder that contains them, which were not followed.
    """

    path: Path
    problems: Mapping[str, str]
    read: Callable[[str], bytes]
    check: Callable[[Iterable[str]], None]
    never_images: frozenset[str] = frozenset()
    loops: Sequence[str] = ()

    def list_tidy(self) -> list[str]:
        """Return the files, sorted, but for clutter and for what neither can be read nor has the name of an image."""
        return [name for name in sorted(self.problems) if not is_clutter(name) and not self._is_bystander(name)]

    def list_remarks(self, images: Iterable[str], others: str) -> tuple[str, ...]:
        """Return a line for each kind of file that a user should know of.

        Args:
            images: those taken.
            others: what the other images are, to follow the word.
        """
        taken, tidy = set(images), self.list_tidy()
        formats = [name for name in tidy if name in taken and find_suffix(name) in OTHER_FORMATS]
        named = ", ".join(sorted({OTHER_FORMATS[find_suffix(name)] for name in formats}))
        unreadable = [name for name, problem in sorted(self.problems.items()) if problem and not is_clutter(name)]
        left_out = [name for name in tidy if name not in taken and has_image_suffix(name) and not self.problems[name]]
        if left_out:  # a link may give images of the data set a second name
            real = {os.path.realpath(self.path / name) for name in taken}
            left_out = [name for name in left_out if os.path.realpath(self.path / name) not in real]
        kinds = {
            f"images named as of a format that is not decoded ({named}), to be converted": formats,
            f"images {others}, left out": left_out,
            "not readable, left out": [f"{name} ({self.problems[name].partition(';')[0]})" for name in unreadable],
            "links to a folder around them, not followed": self.loops,
        }
        return tuple(f"{kind} ({len(names):,}): {list_first(names)}" for kind, names in kinds.items() if names)

    def _is_bystander(self, name: str) -> bool:
        return bool(self.problems[name]) and (name in self.never_images or not may_be_image(name))


def list_folder(path: Path, where: str) -> Contents:
    """List the files below a folder; ``where`` begins messages.

    Raises:
        SourceError: a folder in it cannot be listed, so its files are unknown.
    """
    listing, root = list_files(path), os.path.realpath(path)

    def refuse(problems: Mapping[str, str], what: str) -> None:
        if problems:
            listed = list_first(f"{name} ({problem})" for name, problem in sorted(problems.items()))
            raise SourceError(
                f"{where}: {len(problems):,} of its {what} cannot be read: {listed}; check their permissions and where "
                "links lead, or remove them"
            )

    refuse({name: reason for name, reason in listing.closed.items() if not is_clutter(name) or name == "."}, "folders")
    return Contents(
        path,
        listing.files,
        lambda name: read_file(path / name, root),
        lambda names: refuse({name: listing.files[name] for name in names if listing.files[name]}, "files"),
        loops=listing.loops,
    )


def list_archive(archive: Archive, folder: str = "") -> Contents:
    """List the members of an archive below one of its folders.

    Raises:
        ArchiveError: it has no such folder.
    """
    members = archive.list_below(folder)
    return Contents(
        archive.path / folder,
        {name: archive.find_problem(member) for name, member in members.items()},
        lambda name: archive.read(members[name]),
        lambda names: archive.check(members[name] for name in names),
        frozenset(name for name, member in members.items() if not archive.is_regular(member)),
    )

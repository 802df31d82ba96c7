"""Entries that a tracking store has not received yet, on disk: a journal for each run and store, with copies of files.

Entries carry the time they were made at, so that a store which has seen one already knows it again. Journals may hold
params and file names: only the user can read them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gender_classifier.common.files import fsync
from gender_classifier.common.locks import hold_lock

Entry = dict[str, Any]

_JOURNAL = "journal.jsonl"
_REFUSED = ".refused"


@dataclass(frozen=True)
class Outbox:
    """Unsent entries of one run for one store: a folder named after the run, in one named after the store."""

    folder: Path

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def is_empty(self) -> bool:
        return not self._journal.is_file()

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock to hold while entries are sent."""
        make_private(self.folder.parent.parent)
        make_private(self.folder.parent)
        return hold_lock(self.folder.with_suffix(".lock"))

    def append(self, entry: Entry, attachment: Path | None = None) -> None:
        """Add ``entry``, and a copy of the file or folder ``attachment``: the original may be gone when it is sent."""
        with self.lock():
            make_private(self.folder)
            if attachment is not None:
                place = self._make_place() / attachment.name
                if attachment.is_dir():
                    shutil.copytree(attachment, place)
                else:
                    shutil.copyfile(attachment, place)
                entry = {**entry, "file": place.relative_to(self.folder).as_posix()}
            line = json.dumps(entry).encode() + b"\n"
            descriptor = os.open(self._journal, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "r+b", buffering=0) as file:
                size = os.fstat(descriptor).st_size
                # A power cut or a full disk may have torn the last line: this one must not be glued to it.
                is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
                file.write(b"\n" + line if is_torn else line)
                os.fsync(descriptor)
            fsync(self.folder)

    def entries(self) -> Iterator[tuple[Entry, Path | None]]:
        """Yield what is to be sent, in order, with the attachment's copy; a torn line is passed over."""
        if self.is_empty:
            return
        for line in self._journal.read_bytes().split(b"\n"):
            entry = _parse(line)
            if entry is not None:
                yield entry, self.folder / entry["file"] if "file" in entry else None

    def clear(self) -> None:
        """Forget the entries: they were sent."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def set_aside(self) -> Path:
        """Move a box that the store refuses out of the way, so that it holds up nothing; return where it is."""
        target, count = self.folder.with_name(f"{self.run_id}{_REFUSED}"), 1
        while target.exists():
            count += 1
            target = self.folder.with_name(f"{self.run_id}{_REFUSED}-{count}")
        self.folder.rename(target)
        return target

    def _make_place(self) -> Path:
        files = self.folder / "files"
        count = len(list(files.iterdir())) if files.is_dir() else 0
        while True:
            with suppress(FileExistsError):
                place = files / str(count)
                place.mkdir(parents=True)
                return place
            count += 1

    @property
    def _journal(self) -> Path:
        return self.folder / _JOURNAL


def open_outbox(folder: Path, store: str, run_id: str) -> Outbox:
    """Return the box of a run for a store.

    Args:
        folder: of all boxes.
        store: address, without credentials; another password is the same store.
        run_id: of the run.
    """
    return Outbox(folder / _digest(store)[:16] / run_id)


def find_outboxes(folder: Path, store: str) -> list[Outbox]:
    """Return the boxes below ``folder`` that hold entries for ``store``, by run id."""
    own = folder / _digest(store)[:16]
    _adopt_earlier(folder, store, own)
    boxes = [Outbox(path.parent) for path in sorted(own.glob(f"*/{_JOURNAL}")) if _REFUSED not in path.parent.name]
    return [box for box in boxes if next(box.entries(), None) is not None]


def make_private(folder: Path) -> None:
    """Make a folder that only the user can enter; one that is there is closed to others."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_mode & 0o077:
        with suppress(PermissionError):  # another user's, who has decided
            folder.chmod(0o700)


def _adopt_earlier(folder: Path, store: str, own: Path) -> None:
    """Move boxes of earlier versions, whose first line names the store, to where this version looks."""
    for journal in sorted(folder.glob(f"*/{_JOURNAL}")):
        first = _parse(journal.read_bytes().partition(b"\n")[0], known=("store",))
        target = own / journal.parent.name
        # Without a whole first line the store is unknown; run ids are unique, and a store that has none of this id
        # refuses the box by name.
        if (first is None or first["store"] in (_digest(store), "")) and not target.exists():
            make_private(own)
            journal.parent.rename(target)


def _parse(line: bytes, known: tuple[str, ...] = ("kind",)) -> Entry | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and all(key in value for key in known) else None


def _digest(store: str) -> str:
    return hashlib.sha256(store.encode()).hexdigest()

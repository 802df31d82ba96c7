"""What the tracking store has not received yet, on disk: a journal a run, in order, with copies of its files.

Entries carry the time they were made at, so that a store which has seen one already knows it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gender_classifier.common.locks import hold_lock

Entry = dict[str, Any]


@dataclass(frozen=True)
class Outbox:
    """Unsent entries of one run; ``store`` names the store that they are meant for."""

    folder: Path
    store: str

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def is_empty(self) -> bool:
        return not self._journal.is_file()

    def lock(self) -> AbstractContextManager[None]:
        """Return the lock to hold while entries are sent."""
        return hold_lock(self.folder.with_suffix(".lock"))

    def append(self, entry: Entry, attachment: Path | None = None) -> None:
        """Add ``entry``, and a copy of the file or folder ``attachment``: the original may be gone when it is sent."""
        with self.lock():
            self.folder.mkdir(parents=True, exist_ok=True)
            if attachment is not None:
                place = self.folder / "files" / str(len(self._lines())) / attachment.name
                place.parent.mkdir(parents=True, exist_ok=True)
                if attachment.is_dir():
                    shutil.copytree(attachment, place, dirs_exist_ok=True)
                else:
                    shutil.copyfile(attachment, place)
                entry = {**entry, "file": str(place.relative_to(self.folder))}
            with self._journal.open("a", encoding="utf-8") as file:
                if not file.tell():
                    file.write(json.dumps({"store": _digest(self.store)}) + "\n")
                file.write(json.dumps(entry) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def entries(self) -> Iterator[tuple[Entry, Path | None]]:
        """Yield what is to be sent, in order, with the attachment's copy; nothing if it is meant for another store."""
        parsed = [_parse(line) for line in self._lines()]
        if not parsed or parsed[0] != {"store": _digest(self.store)}:
            return
        for entry in parsed[1:]:
            if entry is not None:  # the last line may be torn
                yield entry, self.folder / entry["file"] if "file" in entry else None

    def clear(self) -> None:
        """Forget the entries."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _lines(self) -> list[str]:
        return [] if self.is_empty else self._journal.read_text(encoding="utf-8").splitlines()

    @property
    def _journal(self) -> Path:
        return self.folder / "journal.jsonl"


def find_outboxes(folder: Path, store: str) -> list[Outbox]:
    """Return the boxes below ``folder`` that hold entries for ``store``, by run id."""
    boxes = [Outbox(path.parent, store) for path in sorted(folder.glob("*/journal.jsonl"))]
    return [box for box in boxes if next(box.entries(), None) is not None]


def _parse(line: str) -> Entry | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _digest(store: str) -> str:
    """Addresses may hold a password; the journal keeps a hash."""
    return hashlib.sha256(store.encode()).hexdigest()

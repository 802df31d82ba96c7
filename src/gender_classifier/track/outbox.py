"""What the tracking store has not received yet, on disk: a journal a run and store, in order, with copies of its files.

Entries carry the time they were made at, so that a store which has seen one already knows it again. Only the user can
read them.

    .mlflow-unsent/RUN/STORE/journal.jsonl    STORE is a hash of the address, without user and password
    .mlflow-unsent/RUN/STORE/files/...        copies of the files that entries name
    .mlflow-unsent/RUN/refused-.../           what a store has refused: kept, no longer sent
    .mlflow-unsent/RUN/journal.jsonl          of earlier versions, which named the store in the first line
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gender_classifier.common.credentials import strip_credentials
from gender_classifier.common.files import flush_to_disk
from gender_classifier.common.locks import hold_lock

Entry = dict[str, Any]

_JOURNAL, _FILES, _REFUSED = "journal.jsonl", "files", "refused-"


@dataclass(frozen=True)
class Outbox:
    """Unsent entries of one run for one store.

    Attributes:
        folder: of the run, called by its id.
        store: the address of the store that the entries are meant for.
    """

    folder: Path
    store: str

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def is_empty(self) -> bool:
        return not self._parts()

    @property
    def place(self) -> Path:
        """The folder of the entries for this store."""
        return self.folder / _hash(strip_credentials(self.store))[:16]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock to hold while entries are sent."""
        for path in (self.folder.parent, self.folder):
            _make_private(path)
        with hold_lock(self.folder.with_suffix(".lock")):
            yield

    def append(self, entry: Entry, attachment: Path | None = None) -> None:
        """Add ``entry``, and a copy of the file or folder ``attachment``: the original may be gone when it is sent.

        Raises:
            OSError: it cannot be written; what is there already stays.
        """
        with self.lock():
            _make_private(self.place)
            if attachment is not None:
                copy = _copy(attachment, self.place / _FILES / secrets.token_hex(8))
                entry = {**entry, "file": copy.relative_to(self.place).as_posix()}
            _append_line(self.place / _JOURNAL, json.dumps(entry).encode())

    def entries(self) -> Iterator[tuple[Entry, Path | None]]:
        """Yield what is to be sent, in order, with the attachment's copy; without torn lines and lost copies."""
        for entry, copy in self._read():
            if entry is not None and (copy is None or copy.exists()):
                yield entry, copy

    def count_torn(self) -> int:
        """Return how many entries can never be sent: a power cut or a full disk has torn their line or their copy."""
        return len(list(self._read())) - len(list(self.entries()))

    def clear(self) -> None:
        """Forget the entries, which were sent."""
        for part in self._parts():
            (part / _JOURNAL).unlink()  # first: no entry may outlive its file
            shutil.rmtree(part / _FILES, ignore_errors=True)
        for folder in (self.place, self.folder):
            with suppress(OSError):  # not there; or not empty: another store's entries are in it
                folder.rmdir()

    def set_aside(self) -> Path:
        """Rename the box, so that it is kept and no longer sent; return its new folder."""
        aside = self.folder / f"{_REFUSED}{secrets.token_hex(4)}"
        for part in self._parts():
            if part == self.place:
                target = aside.with_name(f"{aside.name}-2") if aside.exists() else aside
                part.rename(target)
            else:  # of an earlier version: the folder is the run's
                aside.mkdir(mode=0o700)
                for name in (_FILES, _JOURNAL):
                    with suppress(FileNotFoundError):
                        (part / name).rename(aside / name)
        return aside

    def _parts(self) -> list[Path]:
        """Return the folders with a journal for this store, the oldest first."""
        old = [self.folder] if _is_meant_for(self.store, self.folder / _JOURNAL) else []
        return old + ([self.place] if (self.place / _JOURNAL).is_file() else [])

    def _read(self) -> Iterator[tuple[Entry | None, Path | None]]:
        """Yield each entry, None for a torn one, and where the copy of its file should be."""
        for part in self._parts():
            for line in (part / _JOURNAL).read_bytes().split(b"\n"):
                for entry in _parse(line):
                    yield entry, part / entry["file"] if entry is not None and "file" in entry else None


def find_outboxes(folder: Path, store: str) -> list[Outbox]:
    """Return the boxes below ``folder`` that hold entries for ``store``, by run id."""
    boxes = (Outbox(run, store) for run in _list_runs(folder))
    return [box for box in boxes if not box.is_empty]


def find_strays(folder: Path, store: str) -> list[str]:
    """Return the runs below ``folder`` that hold entries for other stores than ``store``, refused ones apart."""
    found = []
    for run in _list_runs(folder):
        box = Outbox(run, store)
        others = {path.parent for path in run.glob(f"*/{_JOURNAL}") if not path.parent.name.startswith(_REFUSED)}
        if others - {box.place} or ((run / _JOURNAL).is_file() and run not in box._parts()):
            found.append(run.name)
    return found


def _list_runs(folder: Path) -> list[Path]:
    if folder.is_dir():
        _make_private(folder)  # earlier versions left it open to everyone
    found = [path.parent for path in folder.glob(f"*/{_JOURNAL}")]
    return sorted({*found, *(path.parent.parent for path in folder.glob(f"*/*/{_JOURNAL}"))})


def _is_meant_for(store: str, journal: Path) -> bool:
    """Return True if an earlier version wrote ``journal`` for ``store``, or if its first line is too torn to tell.

    The run is known to one store alone: another one refuses it.
    """
    try:
        first = journal.read_bytes().partition(b"\n")[0]
    except OSError:
        return False
    header = json.dumps({"store": _hash(store)}).encode()
    if first == header or not first.startswith(b'{"store"'):
        return True
    torn, brace, _ = first[1:].partition(b"{")  # the next entry, written behind the torn line
    return header.startswith(b"{" + torn) if brace else header.startswith(first)


def _parse(line: bytes) -> Iterator[Entry | None]:
    """Yield the entry in ``line``; None for a torn one, and then any that was written behind it."""
    if not line.strip():
        return
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        yield None
        place = line.find(b'{"kind"', 1)
        if place > 0:
            yield from _parse(line[place:])
        return
    if not isinstance(value, dict):
        yield None
    elif value.keys() != {"store"}:  # the first line of earlier versions
        yield value


def _append_line(path: Path, line: bytes) -> None:
    """Add a line; a line before it that was torn is ended first."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        is_torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
        data = (b"\n" if is_torn else b"") + line + b"\n"
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        except OSError as error:
            error.filename = error.filename or str(path)
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise
    finally:
        os.close(descriptor)
    if not size:
        for folder in list(path.parents)[:3]:
            flush_to_disk(folder)


def _copy(source: Path, folder: Path) -> Path:
    """Copy a file or folder into the new ``folder``, for the user alone; on disk, or nothing is left of it."""
    for new in (folder.parent, folder):
        _make_private(new)
    copy = folder / source.name
    try:
        if source.is_dir():
            shutil.copytree(source, copy)
        else:
            shutil.copyfile(source, copy)
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o700 if path.is_dir() else 0o600)
            flush_to_disk(path)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return copy


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        with suppress(PermissionError):  # somebody else's
            folder.chmod(0o700)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

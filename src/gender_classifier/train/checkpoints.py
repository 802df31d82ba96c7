"""A training that was stopped, on disk: one file, whole or absent, under a name made of all that decides its result.

Checkpoints lie outside DVC's outputs, which DVC deletes before a stage runs, at the root of the main checkout.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gender_classifier.common.files import write_bytes
from gender_classifier.common.locks import hold_lock

_KEEP = 8  # of the newest; each holds four times the weights, 40 MB for the linear head


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` by name, and ``facts`` that JSON can hold, among them the MLflow ``run_id``."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]


def fingerprint(facts: Mapping[str, Any], files: Iterable[Path]) -> str:
    """Return a SHA-256 over ``facts`` and the content of ``files``, in the given order."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for path in files:
        with path.open("rb") as file:
            while block := file.read(2**20):
                digest.update(block)
        digest.update(path.name.encode())
    return digest.hexdigest()


@contextmanager
def hold_checkpoint(path: Path) -> Iterator[None]:
    """Keep other processes from the same training; wait, and say so, while one is at it."""
    lock_path = path.with_suffix(".lock")

    def tell() -> None:
        print(f"the same training runs in another process (it holds {lock_path}); waiting for it to end")

    with hold_lock(lock_path, on_wait=tell):
        yield


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write ``checkpoint``; the one before it stays until this one is whole."""
    write_bytes(path, pack_checkpoint(checkpoint))


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read ``path``; None where there is no such file, or not a whole one."""
    try:
        return unpack_checkpoint(path.read_bytes())
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """Return ``checkpoint`` in the safetensors format."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in sorted(checkpoint.tensors.items())}
    return save(tensors, {"facts": json.dumps(dict(checkpoint.facts))})


def unpack_checkpoint(data: bytes) -> Checkpoint:
    """Return what :func:`pack_checkpoint` packed.

    Raises:
        SafetensorError, KeyError, ValueError: the bytes are not a whole checkpoint.
    """
    tensors = load(data)
    # The format is a length, a JSON header that may hold text of ours, and the tensors; load() passes the text over.
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return Checkpoint(tensors, json.loads(header["__metadata__"]["facts"]))


def discard_checkpoints(folder: Path, run_id: str) -> None:
    """Remove the checkpoints of a run whose results are recorded, and all but the newest few of others."""
    paths = sorted(folder.glob("*.safetensors"), key=lambda path: path.stat().st_mtime, reverse=True)
    for place, path in enumerate(paths):
        found = load_checkpoint(path)
        if place >= _KEEP or found is None or found.facts.get("run_id") == run_id:
            path.unlink(missing_ok=True)
            path.with_suffix(".lock").unlink(missing_ok=True)

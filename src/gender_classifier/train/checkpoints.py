"""A training that was stopped, on disk: one file, whole or absent, under a name made of all that decides its result.

Checkpoints lie outside DVC's outputs, which DVC deletes before a stage runs, at the root of the main checkout.
"""

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from gender_classifier.common.files import remove_leftovers, write_bytes
from gender_classifier.common.locks import hold_lock
from gender_classifier.errors import LockError

_logger = logging.getLogger(__name__)


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
        _logger.warning("the same training runs in another process (it holds %s); waiting for it to end", lock_path)

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
    """Remove the checkpoints of a run whose results are recorded, and what nobody can go on from.

    Any whole checkpoint of another run stays, however old: whoever stopped it may go on, and no process can know that
    nobody will. One whose lock is held stays in any case, its training runs.
    """
    for path in folder.glob("*.safetensors"):
        facts = _read_facts(path)
        if facts is not None and facts.get("run_id") != run_id:
            continue
        with suppress(LockError, Timeout), hold_lock(path.with_suffix(".lock"), timeout=0):
            path.unlink(missing_ok=True)
    remove_leftovers(folder)


def _read_facts(path: Path) -> Mapping[str, Any] | None:
    """Return the facts in a checkpoint without reading its tensors; None where it is torn."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None

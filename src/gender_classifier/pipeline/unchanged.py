"""Stop a stage whose params or data another process has changed: DVC hashes both after a stage, not before it."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from gender_classifier.common.paths import Layout
from gender_classifier.errors import DataError, ParamsError
from gender_classifier.pipeline.params import Params, flatten_params, load_params

_CODE = ("src/", "stages/")

# Larger files are compared by inode, size and time, smaller ones by content: Git rewrites some in passing.
_MAX_HASHED = 1 << 20

_ADVICE = "run again, and one DVC command at a time in a checkout (others: dvc exp run --temp or --queue)"


@contextmanager
def expect_unchanged(name: str, layout: Layout, params: Params) -> Iterator[None]:
    """Raise at the end of the block if the stage's params or data are no longer what they were at its start.

    A second `dvc exp run` in the same checkout writes its ``-S`` values to ``params.yaml``, and restores files of the
    last commit, before DVC finds the first one at work. DVC would then record them as what the first one has used.
    Code is not compared: a module is read when the stage starts.

    Args:
        name: of the stage in ``dvc.yaml``, which lists what it depends on.
        layout: where the stage runs.
        params: with which it runs.

    Raises:
        ParamsError: a param of the stage has another value now, or ``params.yaml`` has become unreadable.
        DataError: another process has replaced or removed one of its files.
    """
    declared, paths = _read_stage(name, layout.root)
    values, files = _select(params, declared), {path: _identify(layout.root / path) for path in paths}
    yield
    found = _select(load_params(layout.params_path), declared)
    for key in sorted(values.keys() | found.keys()):
        before, now = (state.get(key, "absent") for state in (values, found))
        if before != now:
            raise ParamsError(
                f"{layout.params_path}: `{key}` was {before} when this stage began and is {now} now, changed by an "
                f"editor or another DVC command; {_ADVICE}"
            )
    for path, identity in files.items():
        if _identify(layout.root / path) != identity:
            raise DataError(f"{layout.root / path}: changed by another process while this stage used it; {_ADVICE}")


def _read_stage(name: str, root: Path) -> tuple[list[str], list[str]]:
    """Return the params and the data files on which a stage depends; none where DVC does not run it."""
    try:
        entry = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][name]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):  # absent, or refused by DVC itself
        return [], []
    if not isinstance(entry, Mapping):
        return [], []
    params, deps = ([item for item in entry.get(kind) or [] if isinstance(item, str)] for kind in ("params", "deps"))
    return params, [dep for dep in deps if not dep.startswith(_CODE)]


def _select(params: Params, declared: list[str]) -> dict[str, object]:
    """Return the values of the keys that ``declared`` names, or whose section it names."""
    return {
        key: value
        for key, value in flatten_params(params).items()
        if any(f"{key}.".startswith(f"{name}.") for name in declared)
    }


def _identify(path: Path) -> object:
    try:
        status = path.stat()
        if status.st_size <= _MAX_HASHED:
            return hashlib.sha256(path.read_bytes()).digest()
    except OSError as error:  # missing, which the stage itself reports; or a folder
        return error.errno
    return status.st_ino, status.st_size, status.st_mtime_ns

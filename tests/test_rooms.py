"""The rule of imports between rooms, and what each room may import from outside."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkout import ROOT

PACKAGE = ROOT / "src" / "gender_classifier"
LEVELS = (
    {"__init__", "errors", "version"},
    {"common"},
    {"data", "model", "metrics"},
    {"ingest", "verify", "preprocess", "train", "evaluate", "predict"},
    {"monitor", "serve"},
    {"track"},
    {"pipeline"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: number for number, rooms in enumerate(LEVELS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))
TORCH_FREE = {"common", "data", "metrics", "predict", "serve", "monitor"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def list_imports(path: Path) -> Iterator[str]:
    """Yield dotted names, those below ``if TYPE_CHECKING:`` too: a type is a dependency for the reader."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_room_has_a_level() -> None:
    assert {room_of(path) for path in MODULES} == set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_module_imports_from_rooms_below_its_own(path: Path) -> None:
    room = room_of(path)
    if path == PACKAGE / "__init__.py":
        return  # names its public classes for type checkers, and imports none: the test below
    for name in list_imports(path):
        parts = name.split(".")
        if parts[0] == "gender_classifier":
            assert parts[1] == room or LEVEL[parts[1]] < LEVEL[room], name
        if room != "track":
            assert parts[0] not in ("mlflow", "dvc", "sqlalchemy"), name
        if room in TORCH_FREE:
            assert parts[0] not in ("torch", "torchvision"), name


def test_importing_the_package_imports_nothing_of_it() -> None:
    code = (
        "import sys, gender_classifier; print([name for name in sys.modules if name.startswith('gender_classifier.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                          env={"PYTHONPATH": str(PACKAGE.parent)})  # fmt: skip
    assert done.stdout == "[]\n"


def test_no_circle_of_modules() -> None:
    names = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in MODULES}
    graph = {name: {found for one in list_imports(path) for found in (one, one.rpartition(".")[0]) if found in names and found != name}
             for name, path in names.items()}  # fmt: skip
    done: set[str] = set()
    while len(done) < len(graph):
        ready = {name for name, needed in graph.items() if name not in done and needed <= done}
        assert ready, sorted(set(graph) - done)
        done |= ready


def test_rooms_and_modules_stay_small() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in MODULES}
    assert {path.name: count for path, count in lines.items() if count > 350} == {}
    for room in {path.parent for path in MODULES}:
        assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 14, room
    modules = sorted(count for path, count in lines.items() if path.name != "__init__.py")
    assert modules[len(modules) // 2] <= 120
    for script in (ROOT / "stages").glob("*.py"):
        assert len(script.read_text().splitlines()) <= 60, script.name


def test_every_room_below_track_imports_without_mlflow_and_dvc() -> None:
    below = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in MODULES
             if LEVEL[room_of(path)] < LEVEL["track"] and path.stem != "__main__"]  # fmt: skip
    code = (
        "import importlib, sys\n"
        "for name in ('mlflow', 'dvc', 'sqlalchemy'): sys.modules[name] = None\n"
        f"for name in {below!r}: importlib.import_module(name)\n"
        "from gender_classifier.cli.main import main\n"
        "try: main(['--version'])\n"
        "except SystemExit as end: assert not end.code\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={"PYTHONPATH": str(PACKAGE.parent)})  # fmt: skip
    assert done.returncode == 0, done.stderr

"""The code that DVC watches: modules imported by a stage's script, directly or not, except those listed here."""

import ast
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "gender_classifier"

UNWATCHED = {
    "src/gender_classifier/errors.py": "texts of errors; a stage that fails writes no output",
    "src/gender_classifier/common/locks.py": "messages about waiting processes",
    "src/gender_classifier/common/logs.py": "log messages",
    "src/gender_classifier/common/paths.py": "DVC watches the files at these paths",
    "src/gender_classifier/common/processes.py": "signals, and processors per job",
    "src/gender_classifier/common/progress.py": "progress bars",
    "src/gender_classifier/common/schema.py": "checks params, whose values DVC watches",
    "src/gender_classifier/common/credentials.py": "hides passwords in messages and in MLflow",
    "src/gender_classifier/common/terminal.py": "terminal output",
    "src/gender_classifier/*/params.py": "declares params, whose values DVC watches",
    "src/gender_classifier/pipeline/params.py": "assembles params, whose values DVC watches",
    "src/gender_classifier/pipeline/stage.py": "how a stage starts and fails",
    "src/gender_classifier/pipeline/unchanged.py": "stops a stage; one that fails writes no output",
    "src/gender_classifier/pipeline/watched.py": "this list",
    "src/gender_classifier/track/*.py": "mirrors to MLflow; files do not depend on it",
    "stages/_source.py": "locates the package",
}
"""Files or patterns that cannot change an output, each with the reason.

Their imports are still followed: an imported module is watched unless it is listed too.
"""


def find_watched(stage: str, root: Path = ROOT) -> list[Path]:
    """Return the code that affects a stage's outputs: its script, then modules and templates by path.

    A template belongs to the module of the same name.

    Args:
        stage: name of the script in ``stages/``.
        root: the checkout.
    """
    script = root / "stages" / f"{stage}.py"
    paths = {path for path in find_imported(script, root) if not is_unwatched(path.relative_to(root))}
    templates = {template for path in paths for template in path.parent.glob(f"{path.stem}.*.j2")}
    return [script, *sorted(paths | templates)]


def is_unwatched(path: Path) -> bool:
    """Return True if a path relative to the checkout is on the list."""
    return any(fnmatch(path.as_posix(), pattern) for pattern in UNWATCHED)


def find_imported(script: Path, root: Path = ROOT) -> set[Path]:
    """Return all files of the checkout that a script imports, directly or not, without running it.

    This includes the ``__init__.py`` of the modules' packages, which Python runs first.
    """
    found: set[Path] = set()
    waiting = {script}
    while waiting:
        imported = {path for module in _list_imports(waiting.pop()) for path in _locate(module, root)}
        waiting |= imported - found
        found |= imported
    return found


def _locate(module: str, root: Path) -> Iterator[Path]:
    if (script := root / "stages" / f"{module}.py").is_file():
        yield script
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return
    for count in range(1, len(parts) + 1):
        path = root.joinpath("src", *parts[:count])
        yield from (file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file())


def _list_imports(path: Path) -> Iterator[str]:
    for node in _walk_executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk all nodes except those below ``if TYPE_CHECKING:``."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk_executed(child)

"""Which modules of the library a script imports, directly or not, read from the source without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "gender_classifier"


def imported_files(script: Path) -> set[str]:
    """Return the files below ``src/`` in the import closure of ``script``, relative to the project root.

    ``stages/_source.py``, which says where ``src/`` is, is always among them.
    """
    found: set[str] = set()
    waiting = [script]
    while waiting:
        for module in _imports(waiting.pop()):
            path = f"src/{module.replace('.', '/')}.py"
            if path not in found and (ROOT / path).is_file():
                found.add(path)
                waiting.append(ROOT / path)
    return found | {f"src/{PACKAGE}/__init__.py", "stages/_source.py"}


def _imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in _walk_executed(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == PACKAGE:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names if alias.name.split(".")[0] == PACKAGE}
    return names


def _walk_executed(node: ast.AST) -> Iterator[ast.AST]:
    """Walk all but what stands below ``if TYPE_CHECKING:``."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _walk_executed(child)

"""Where the project is: the nearest folder with a ``dvc.yaml``, and the main checkout behind DVC's temporary ones."""

from __future__ import annotations

import os
from pathlib import Path


def find_checkout(folder: Path) -> Path | None:
    """Return the nearest folder at or above ``folder`` that holds a ``dvc.yaml``, or None outside any project.

    ``.dvc`` and ``.git`` may lie further up: the project may be one folder of a larger repository.
    """
    folder = folder.resolve()
    return next((place for place in (folder, *folder.parents) if (place / "dvc.yaml").is_file()), None)


def find_main_root(root: Path) -> Path:
    """Return the checkout that the user works in, for the project folder ``root``.

    A ``dvc exp run --temp`` or queued run works in a copy of the repository that vanishes after the run. In it,
    ``DVC_ROOT`` still names the repository that was copied; the project has the same place there as in the copy.
    Anywhere else this is ``root`` itself.
    """
    root = root.resolve()
    named = os.environ.get("DVC_ROOT")
    if not named:
        return root
    main = Path(named).resolve()
    places = (root, *root.parents)
    if root.is_relative_to(main / ".dvc"):
        copies = [place for place in places if place.is_relative_to(main / ".dvc") and (place / ".dvc").is_dir()]
        return main / root.relative_to(copies[0] if copies else root)
    has_repository = any((place / ".dvc").is_dir() for place in places)
    return root if has_repository else main  # a bare copy of the files has no repository of its own

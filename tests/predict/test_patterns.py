"""Patterns match as glob's do, and come back from every loop."""

import glob
from pathlib import Path

import pytest

from gender_classifier.predict.patterns import expand_pattern

FILES = ("a.jpg", "b.PNG", ".hidden", "d/e.jpg", "d/f/g.jpg", "d/.h/i.jpg", "x y/[1].jpg", "d.jpg/z")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "pattern",
    ["*", "*.jpg", "d/*", "*/*.jpg", "**/*.jpg", "d/**/*.jpg", "**/f/*", ".*", "d/.h/*", "./*.jpg", "?.*", "[ab].*",
     "**/d*/**/g.jpg", "no/*", "*/", "a.jpg/*", "**/**/*.jpg", "../*/d/*", "*/f/g.jpg", "d/**/f/g.jpg"],
)  # fmt: skip
def test_matches_are_those_of_glob(tree: Path, pattern: str) -> None:
    for written in (pattern, str(tree / pattern)):
        assert expand_pattern(written) == (sorted(set(glob.glob(written, recursive=True))), {})  # noqa: PTH207


def test_two_loops_do_not_multiply(tree: Path) -> None:
    (tree / "d" / "self").symlink_to(".")
    (tree / "d" / "f" / "up").symlink_to("..")
    (tree / "elsewhere").symlink_to("d")
    found, closed = expand_pattern("d/**")
    assert (found, closed) == (["d/e.jpg", "d/f", "d/f/g.jpg", "d/f/up", "d/self"], {})
    assert {"elsewhere/e.jpg", "elsewhere/f/g.jpg"} < set(expand_pattern("**/*.jpg")[0])


def test_links_to_nothing_match(tree: Path) -> None:
    (tree / "gone.jpg").symlink_to("nothing")
    assert "gone.jpg" in expand_pattern("*.jpg")[0]

"""Where the project is: from a folder in it, in a larger repository, and in DVC's copies."""

from pathlib import Path

import pytest

from gender_classifier.common.paths import find_checkout, find_main_root


@pytest.fixture
def monorepo(tmp_path: Path) -> Path:
    """Return a project in a subfolder of a repository that DVC and Git manage as a whole."""
    for folder in (".git", ".dvc", "services/faces/docs/images"):
        (tmp_path / folder).mkdir(parents=True)
    project = tmp_path / "services" / "faces"
    (project / "dvc.yaml").touch()
    return project


def test_every_folder_of_a_project_leads_to_it(monorepo: Path) -> None:
    assert find_checkout(monorepo) == monorepo
    assert find_checkout(monorepo / "docs" / "images") == monorepo
    assert find_checkout(monorepo.parent) is None


def test_without_dvc_the_project_is_the_main_checkout(monorepo: Path) -> None:
    assert find_main_root(monorepo) == monorepo


@pytest.mark.parametrize("place", ["tmpabc", "standalone/tmpxyz"])
def test_a_copy_leads_to_the_project_it_was_copied_from(
    monorepo: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = monorepo.parents[1]
    copy = repository / ".dvc" / "tmp" / "exps" / place
    (copy / ".dvc").mkdir(parents=True)
    (copy / "services" / "faces").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(repository))
    assert find_main_root(copy / "services" / "faces") == monorepo
    assert find_main_root(copy) == repository
    assert find_main_root(monorepo) == monorepo  # in place, though .dvc lies above


def test_another_repositorys_stage_may_call_for_this_project(
    monorepo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    (other / ".dvc").mkdir(parents=True)
    monkeypatch.setenv("DVC_ROOT", str(other))
    assert find_main_root(monorepo) == monorepo

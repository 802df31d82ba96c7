"""DVC's experiments, read from Git: which name stands for which MLflow run, and the runs that lack a name.

DVC restores an experiment whose results it has cached without running a stage, so that no stage can tell MLflow of
the new name.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import dvc.api
import yaml
from dvc.exceptions import DvcException
from mlflow import MlflowClient
from mlflow.entities import Run

from gender_classifier.common.paths import Layout
from gender_classifier.track.identity import list_dvc_experiments, run_git, split_names
from gender_classifier.track.store import OPEN_TIMEOUT, find_experiments, one_line_errors, patience


def find_dvc_experiments(root: Path) -> list[tuple[str, str]]:
    """Return name and MLflow run of the experiments of the checkout at ``root`` whose model is known, by name."""
    found = []
    run_ids: dict[str, str | None] = {}  # by the content's hash: many experiments may share one
    for name, commit in list_dvc_experiments(root):
        content = _hash_of_run_file(root, commit)
        if content is None:
            continue
        if content not in run_ids:
            run_ids[content] = _read_run_id(root, commit)
        run_id = run_ids[content]
        if run_id is not None:
            found.append((name, run_id))
    return sorted(found)


def name_experiments(client: MlflowClient, experiments: Iterable[tuple[str, str]]) -> int:
    """Add to runs the names of DVC experiments that they do not bear: DVC restored their results without a stage.

    The run's name and its tag ``dvc.exp`` then hold all of its names, separated by commas; the name keeps what it began
    with, such as that of `dvc repro`, if the run was no experiment's.

    Args:
        client: of the store.
        experiments: DVC's name, and the id of the run that trained the model, of each.

    Returns:
        How many names were added.
    """
    with one_line_errors(), patience(client.tracking_uri, OPEN_TIMEOUT):
        ids = list(find_experiments(client).values())
        runs = {run.info.run_id: run for run in _search_all(client, ids)}
        names = {run_id: split_names(run.data.tags.get("dvc.exp", "")) for run_id, run in runs.items()}
        titles = {run_id: run.info.run_name or "" for run_id, run in runs.items()}
        # An experiment that evaluated a restored model again has a row of its own.
        taken = {(run.data.tags.get("continues"), name) for run_id, run in runs.items() for name in names[run_id]}
        added = 0
        for name, run_id in experiments:
            if run_id in runs and name not in names[run_id] and (run_id, name) not in taken:
                names[run_id].append(name)
                titles[run_id] = ", ".join(filter(None, (titles[run_id], name)))
                client.set_tag(run_id, "dvc.exp", ", ".join(names[run_id]))
                client.update_run(run_id, name=titles[run_id])
                added += 1
    return added


def _search_all(client: MlflowClient, ids: list[str]) -> Iterator[Run]:
    token = None
    while ids:
        page = client.search_runs(ids, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _hash_of_run_file(root: Path, commit: str) -> str | None:
    lock = yaml.safe_load(run_git(root, "show", f"{commit}:./dvc.lock") or "{}")  # ./: the project may be a subfolder
    outs = lock.get("stages", {}).get("train", {}).get("outs", [])
    name = Layout(Path()).mlflow_run_path.as_posix()
    return next((out.get("md5") for out in outs if out.get("path") == name), None)


def _read_run_id(root: Path, commit: str) -> str | None:
    path = Layout(root).mlflow_run_path
    repository = next((place for place in (root, *root.parents) if (place / ".dvc").is_dir()), root)
    try:
        text = dvc.api.read(path.relative_to(repository).as_posix(), repo=str(repository), rev=commit, mode="r")
    except (DvcException, OSError):  # neither in the cache nor at a remote
        return None
    value = yaml.safe_load(text)
    return str(value["run_id"]) if isinstance(value, dict) and "run_id" in value else None

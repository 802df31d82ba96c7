"""What a later command sets right: entries that were not sent, runs whose process died, names of experiments."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Run

from gender_classifier.common.paths import Layout
from gender_classifier.common.processes import is_dead
from gender_classifier.track.delivery import deliver_all
from gender_classifier.track.outbox import find_outboxes
from gender_classifier.track.resume import split_names
from gender_classifier.track.store import (
    OPEN_TIMEOUT,
    UPLOAD_TIMEOUT,
    find_experiments,
    name_store,
    one_line_errors,
    patience,
    quiet_mlflow,
)


def catch_up(client: MlflowClient, root: Path) -> tuple[int, int]:
    """Send what the store has missed, and mark runs KILLED whose process on this host has died.

    Returns:
        How many runs were completed, and how many were marked.

    Raises:
        TrackingError: the store does not answer, or refuses an entry.
    """
    with quiet_mlflow(), one_line_errors(), patience(UPLOAD_TIMEOUT):
        completed = deliver_all(client, find_outboxes(Layout(root).outbox_dir, name_store(client.tracking_uri, root)))
        return completed, _mark_dead(client)


def name_experiments(client: MlflowClient, experiments: Iterable[tuple[str, str]]) -> int:
    """Add to runs the names of DVC experiments that they do not bear: DVC restored their results without a stage.

    The run's name and its tag ``dvc.exp`` then hold all of its names, separated by commas.

    Args:
        client: of the store.
        experiments: DVC's name, and the id of the run that trained the model, of each.

    Returns:
        How many names were added.
    """
    with one_line_errors(), patience(OPEN_TIMEOUT):
        ids = list(find_experiments(client).values())
        runs = {run.info.run_id: run for run in _search_all(client, ids)}
        names = {run_id: split_names(run.data.tags.get("dvc.exp", "")) for run_id, run in runs.items()}
        # An experiment that evaluated a restored model again has a row of its own.
        taken = {(run.data.tags.get("continues"), name) for run_id, run in runs.items() for name in names[run_id]}
        added = 0
        for name, run_id in experiments:
            if run_id in runs and name not in names[run_id] and (run_id, name) not in taken:
                names[run_id].append(name)
                text = ", ".join(names[run_id])
                client.set_tag(run_id, "dvc.exp", text)
                client.update_run(run_id, name=text)
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


def _mark_dead(client: MlflowClient) -> int:
    ids = list(find_experiments(client).values())
    running = client.search_runs(ids, "attributes.status = 'RUNNING'") if ids else []
    dead = [run for run in running if is_dead(run.data.tags)]
    for run in dead:
        client.set_terminated(run.info.run_id, "KILLED")
    return len(dead)

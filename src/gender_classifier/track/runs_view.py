"""A saved view for MLflow's table of runs: the columns by which models are compared.

MLflow (3.15 and later) keeps saved views in tags of the experiment, each a JSON object whose ``state`` is the page's
own state, deflated; older versions do not look at them. https://mlflow.org/releases/3.15.0
"""

import base64
import json
import zlib

NAME = "Compare models"
_KEY = "compare-models"

_METRICS = ("test/accuracy", "best_val_accuracy", "test/loss", "best_epoch")
_PARAMS = ("lr", "batch_size", "epochs", "weight_decay", "seed", "train.head", "train.weights", "source")
_COLUMNS = [
    *(f"metrics.`{name}`" for name in _METRICS),
    *(f"params.`{name}`" for name in _PARAMS),
    "attributes.`Models`",
]


def build_runs_view(now: int) -> dict[str, str]:
    """Return the experiment's tag that holds the view.

    Args:
        now: ms since 1970; the UI shows when a view was saved.
    """
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": _COLUMNS,
        "columnOrder": _COLUMNS,
        "runsHiddenMode": "FIRST_10_RUNS",
        "hideEmptyCharts": True,
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": NAME, "createdAt": now, "updatedAt": now, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{_KEY}": json.dumps(view)}


def link_runs_view(server: str, experiment_id: str) -> str:
    """Return the address of the experiment's runs in this view, on the server at ``server``."""
    return f"{server.rstrip('/')}/#/experiments/{experiment_id}/runs?viewStateShareKey={_KEY}"

"""A saved view for MLflow's page of runs: the columns by which models are compared, and their curves before all else.

MLflow (3.15 and later) keeps saved views in tags of the experiment, each a JSON object whose ``state`` is the page's
own state, deflated; older versions do not look at them. https://mlflow.org/releases/3.15.0
"""

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

NAME = "Compare models"
_KEY = "compare-models"
_TAG = f"mlflow.sharedViewState.{_KEY}"

METRICS = ("test/accuracy", "val/kept_accuracy", "test/loss", "val/kept_epoch")
PARAMS = ("train.network", "lr", "batch_size", "epochs", "weight_decay", "seed", "train.weights", "source")
"""Columns of the table."""

CURVES = ("val/accuracy", "val/loss", "train/accuracy", "train/loss")
"""The first charts."""

# Sections in this order; MLflow adds a chart to that of its prefix for each metric that has none.
_SECTIONS = ("Curves", "test", "val", "train")


def renew_runs_view(tags: Mapping[str, str], now: int) -> dict[str, str]:
    """Return the experiment's tag that holds the view; nothing if it is there, or if somebody has saved it changed.

    Args:
        tags: of the experiment.
        now: ms since 1970; the UI shows when a view was saved.
    """
    state = f"deflate;{base64.b64encode(zlib.compress(json.dumps(_build_state()).encode())).decode()}"
    view = {"name": NAME, "createdAt": now, "updatedAt": now, "state": state}
    try:
        saved = json.loads(tags.get(_TAG, "{}"))
    except ValueError:
        saved = {}
    is_theirs = saved.get("createdAt") != saved.get("updatedAt") or saved.get("name", NAME) != NAME
    return {} if is_theirs or saved.get("state") == state else {_TAG: json.dumps(view)}


def link_runs_view(server: str, experiment_id: str | None) -> str:
    """Return the address of the experiment's runs in this view, on the server at ``server``; of all if there is none.

    Without its ``workflowType``, MLflow opens among the pages for language models, where it shows no registry.
    """
    pages, mode = f"{server.rstrip('/')}/#/experiments", "workflowType=machine_learning"
    if experiment_id is None:
        return f"{pages}?{mode}"
    return f"{pages}/{experiment_id}/runs?viewStateShareKey={_KEY}&{mode}"


def _build_state() -> dict[str, Any]:
    columns = [
        *(f"metrics.`{name}`" for name in METRICS),
        *(f"params.`{name}`" for name in PARAMS),
        "attributes.`Models`",
    ]
    return {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "selectedColumns": columns,
        "columnOrder": columns,
        "runsHiddenMode": "FIRST_10_RUNS",
        "hideEmptyCharts": True,
        "compareRunCharts": [_build_curve(name) for name in CURVES],
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": 2} for name in _SECTIONS
        ],
        "isAccordionReordered": True,
    }


def _build_curve(name: str) -> dict[str, Any]:
    return {
        "uuid": f"curve-{name}",
        "type": "LINE",
        "metricSectionId": _SECTIONS[0],
        "metricKey": name,
        "selectedMetricKeys": [name],
        "displayName": name,
        "deleted": False,
        "isGenerated": False,
        "runsCountToCompare": 10,
        "xAxisKey": "step",
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "selectedXAxisMetricKey": "",
        "range": {},
        "lineSmoothness": 0,
        "ignoreOutliers": False,
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }

"""An experiment-tracked pipeline for classifiers of face crops. Public names: ``Predictor`` and ``__version__``."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# Both libraries send usage data and write to the user's cache, unless this is set before they are imported.
for _switch, _value in (("ORT_DISABLE_TELEMETRY", "1"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
    os.environ.setdefault(_switch, _value)

if TYPE_CHECKING:
    from gender_classifier.predict.predictor import Predictor
    from gender_classifier.version import __version__

__all__ = ["Predictor", "__version__"]

_PUBLIC = {"Predictor": "gender_classifier.predict.predictor", "__version__": "gender_classifier.version"}


def __getattr__(name: str) -> Any:
    # Imported on demand and by name, since DVC watches what every stage imports.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""An experiment-tracked pipeline that trains AlexNet to tell female from male face crops."""

import os

# Both report their use to their makers, and leave files in the user's cache, unless told otherwise before their import.
for _switch, _value in (("ORT_DISABLE_TELEMETRY", "1"), ("MLFLOW_DISABLE_TELEMETRY", "true")):
    os.environ.setdefault(_switch, _value)

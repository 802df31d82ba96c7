"""An experiment-tracked pipeline that trains AlexNet to tell female from male face crops."""

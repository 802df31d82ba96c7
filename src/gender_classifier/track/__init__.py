"""MLflow and DVC's experiments: the only room that imports either."""

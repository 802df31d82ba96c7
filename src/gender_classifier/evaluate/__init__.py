"""Stage evaluate: the report on the test set, the exported model, its card."""

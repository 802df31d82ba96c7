"""The labelled sets of ``evaluate.extra``: read, measure, and report by attribute."""

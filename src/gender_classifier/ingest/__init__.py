"""Stage ingest: one snapshot of the data source."""

"""Stage ingest: take one snapshot of the data source."""

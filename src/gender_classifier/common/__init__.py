"""Files, paths, params checks, figure style, processes and messages, for use in every room."""

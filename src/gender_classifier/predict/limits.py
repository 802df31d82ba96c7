"""Rules that the command line, the service and its page share; importing them costs nothing."""

MAX_PIXELS = 25_000_000
"""px; a larger image is refused before it is decoded. 25 million px are 75 MB in RGB, and decode in about 1.5 s."""

THRESHOLD = 0.8
"""A prediction with a lower probability counts as uncertain."""

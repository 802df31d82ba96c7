"""The page on which people decide about suspected wrong labels."""

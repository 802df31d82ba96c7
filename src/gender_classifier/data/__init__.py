"""Data that stages hand on: the archive, images, the manifest and arrays; and the reader of labelled sources."""

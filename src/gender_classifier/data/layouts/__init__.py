"""Layouts of labelled sources: which files are images, and what the source says about each."""

"""Drift between new images and the training data."""

"""Monitoring for drift of new images from the training data."""

"""Scores, calibration, curves, tables and histograms of NumPy arrays, without files or models."""

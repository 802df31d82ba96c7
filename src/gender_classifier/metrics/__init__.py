"""Scores, calibration, curves, tables and histograms: NumPy in, numbers out."""

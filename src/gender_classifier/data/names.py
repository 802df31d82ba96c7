"""Names of splits, classes and sources in folders, tables and arrays."""

CLASSES = ("female", "male")
"""Class names in label order: label 0 is ``female``, label 1 is ``male`` (the positive class)."""

RAW_SPLITS = ("Training", "Validation")
"""Split folders of the Kaggle set and the drawn sample. ``Training`` is ``train``, ``Validation`` is ``test``."""

SPLITS = ("train", "val", "test")

SAMPLE = "sample"
"""Name of the built-in source, drawn by code."""

KAGGLE = "kaggle"
"""The source that is downloaded from Kaggle."""

SAMPLE_NOTE = "Synthetic data, drawn by this project: figures measured on it say nothing about faces."

"""The version of this package, once: the build reads it from here, and ``evaluate`` keeps it in the model file.

In a module of its own, which only ``evaluate`` imports: a new version measures again and trains nothing.
"""

__version__ = "0.1.0"

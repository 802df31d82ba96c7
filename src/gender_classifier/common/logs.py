"""Log messages and tracebacks on standard error, the options that control them, and quiet third-party loggers."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from gender_classifier.common.credentials import hide_secrets
from gender_classifier.common.terminal import printable

LEVEL_VARIABLE, DEBUG_VARIABLE = "GENDER_CLASSIFIER_LOG_LEVEL", "GENDER_CLASSIFIER_DEBUG"
PACKAGE = "gender_classifier"


def add_log_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--debug`` and ``--verbose``, which stages and subcommands share."""
    parser.add_argument("--debug", action="store_true", help=f"show tracebacks of errors (or set {DEBUG_VARIABLE}=1)")
    parser.add_argument("--verbose", action="store_true", help=f"log more (or set {LEVEL_VARIABLE}=DEBUG)")


def wants_traceback(options: argparse.Namespace | None) -> bool:
    """Return True if ``--debug`` or the environment asks for tracebacks."""
    return bool(options is not None and options.debug) or os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")


def show_logs(name: str, *, verbose: bool = False) -> None:
    """Print this package's log messages, prefixed with ``name``.

    Args:
        name: of the stage or command.
        verbose: include debug messages. Otherwise ``GENDER_CLASSIFIER_LOG_LEVEL`` sets the level, INFO by default.
    """
    logger = logging.getLogger(PACKAGE)
    logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Handler)]
    handler = _Handler()
    handler.setFormatter(_Formatter(name))
    logger.addHandler(handler)
    level = logging.getLevelNamesMapping().get(os.environ.get(LEVEL_VARIABLE, "").upper(), logging.INFO)
    logger.setLevel(logging.DEBUG if verbose else level)


@contextmanager
def quiet_loggers(*names: str, level: int = logging.ERROR) -> Iterator[None]:
    """Raise the level of the named loggers to ``level`` within the block."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(level)
    try:
        yield
    finally:
        for logger, level_before in zip(loggers, before, strict=True):
            logger.setLevel(level_before)


class _Handler(logging.Handler):
    """Writes to the current ``sys.stderr``, which may be replaced after the handler is made."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


class _Formatter(logging.Formatter):
    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        kind = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        return printable(hide_secrets(f"{self._name}: {kind}{record.getMessage()}"))

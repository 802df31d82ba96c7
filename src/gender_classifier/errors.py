"""Errors that a user can correct. Each message is one line: where, what, which value, what to do."""

from collections.abc import Iterator
from contextlib import contextmanager


class GenderClassifierError(Exception):
    """Base class. A stage prints the message and exits with status 1."""


class ParamsError(GenderClassifierError):
    """A key of ``params.yaml`` is unknown, missing, ill-typed or out of range."""


class SourceError(GenderClassifierError):
    """A labelled source cannot be read or is not laid out as a data set."""


class ArchiveError(GenderClassifierError):
    """An archive is not a zip file, is damaged, or has a member that must not be read."""


class ImageError(GenderClassifierError):
    """Bytes are not a usable image.

    Attributes:
        reason: one word for the manifest: ``empty``, ``not_an_image``, ``truncated``, ``too_large``, ``too_small`` or
            ``unreadable``. The service, which limits the time per image, also has ``too_slow``.
    """

    def __init__(self, reason: str, message: str) -> None:
        """Store ``reason`` for programs besides the message for people."""
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type["ImageError"], tuple[str, str]]:
        """Pickle both arguments."""
        return type(self), (self.reason, str(self))


class InputError(GenderClassifierError):
    """A path given for prediction is missing, cannot be read, or holds no image."""


class DataError(GenderClassifierError):
    """The data set is unusable: a class or split is missing, too much was rejected, a file is incomplete."""


class ModelError(GenderClassifierError):
    """A model or weights file is missing, damaged or made for another purpose."""


class TrackingError(GenderClassifierError):
    """The MLflow store does not respond."""


class LockError(GenderClassifierError):
    """A lock file cannot be created or locked."""


class ServiceError(GenderClassifierError):
    """The HTTP service cannot start."""


class MissingPackageError(GenderClassifierError):
    """A package of an extra is not installed."""

    def __init__(self, package: str, *extras: str) -> None:
        """Name the ``package``, and the ``extras`` of this project that the command needs."""
        what = f"extra{'s' if extras[1:] else ''} {' and '.join(f'`{extra}`' for extra in extras)}"
        super().__init__(
            f"{package} is not installed; install the {what}: in the checkout, `pip install -e '.[{','.join(extras)}]'`"
        )


@contextmanager
def needs_extra(*extras: str) -> Iterator[None]:
    """Turn the failed import of a package into an error that names the extras to install.

    Raises:
        MissingPackageError: a package imported in the block is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", __package__):  # no name, or a module of this project: a mistake in the code
            raise
        raise MissingPackageError(package, *extras) from None
